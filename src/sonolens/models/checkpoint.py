"""Checkpoints: safetensors with one metadata key that says how to build the model again."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sonolens.parallel import resolve_device
from sonolens.store import StoreError, whole

ARCHITECTURES = {
    "resnet18_narrow": "sonolens.models.resnet18:ResNet18",
    "alexnet_small": "sonolens.models.alexnet_small:AlexNetSmall",
}
METADATA_KEY = "sonolens"


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
    function of the arguments: several metadata keys would be written in random order.
    """
    from safetensors.torch import save as to_bytes

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with whole(path) as stream:
        stream.write(to_bytes(tensors, {METADATA_KEY: json.dumps(description, sort_keys=True)}))


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
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"{path}: not a readable checkpoint ({error}); run `dvc repro` or `dvc checkout`"
        ) from error
    if METADATA_KEY not in metadata:
        raise StoreError(
            f"{path}: no key {METADATA_KEY!r} in its metadata; "
            "need a checkpoint written by Sonolens"
        )
    description = json.loads(metadata[METADATA_KEY])
    model = build(description["architecture"], **description["options"])
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
