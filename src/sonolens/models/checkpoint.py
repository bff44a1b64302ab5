"""Checkpoints: safetensors with one metadata key that says how to build the model again."""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sonolens.parallel import resolve_device
from sonolens.store import CURE, StoreError, whole

ARCHITECTURES = {
    "alexnet": "sonolens.models.alexnet:AlexNet",
    "resnet18_narrow": "sonolens.models.resnet18:ResNet18",
    "alexnet_small": "sonolens.models.alexnet_small:AlexNetSmall",
    "audionet": "sonolens.models.audionet:AudioNet",
}
METADATA_KEY = "sonolens"
# Safetensors itself notices cut files, not changed numbers.
DIGEST_KEY = "weights_sha256"


def build(architecture: str, **options: Any) -> nn.Module:
    """New model by name. Raises KeyError that lists the names."""
    if architecture not in ARCHITECTURES:
        raise KeyError(
            f"architecture: found {architecture!r}, need one of {', '.join(ARCHITECTURES)}"
        )
    module, name = ARCHITECTURES[architecture].split(":")
    model: nn.Module = getattr(importlib.import_module(module), name)(**options)
    return model


def save(path: Path, state: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write weights with their `description`.

    It holds architecture, options and what the user of the file must know. The bytes are a
    function of the arguments: several metadata keys would be written in random order. A digest of
    the weights lies in the description.
    """
    from safetensors.torch import save as to_bytes

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    signed = description | {DIGEST_KEY: _digest(tensors)}
    with whole(path) as stream:
        stream.write(to_bytes(tensors, {METADATA_KEY: json.dumps(signed, sort_keys=True)}))


def _digest(tensors: dict[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        total.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def load(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Model in eval mode with frozen parameters, and its description.

    Raises
    ------
    StoreError
        Missing or damaged file, or one without our metadata; keys or shapes that do not fit.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError as error:
        raise StoreError(f"{path}: not found; {CURE}") from error
    except (OSError, SafetensorError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: not a readable checkpoint ({error}); {CURE}") from error
    if METADATA_KEY not in metadata:
        raise StoreError(
            f"{path}: no key {METADATA_KEY!r} in its metadata; "
            "need a checkpoint written by Sonolens"
        )
    try:
        description = json.loads(metadata[METADATA_KEY])
        model = build(description["architecture"], **description["options"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: its description builds no model ({type(error).__name__}: {error.args[0]}); "
            f"{CURE}"
        ) from error
    needed = description.pop(DIGEST_KEY, None)  # absent in files of the first version
    if needed is not None and _digest(state) != needed:
        raise StoreError(f"{path}: damaged, its weights are not those that were saved; {CURE}")
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise StoreError(
            f"{path}: weights do not fit {description['architecture']}: {error}"
        ) from error
    return model.eval().requires_grad_(False), description


def device(kind: str) -> torch.device:
    """`auto`, `cpu` or `cuda`. Raises EngineError when CUDA is asked for and absent."""
    return torch.device(resolve_device(kind))
