"""Which source files a module stands on, and content keys made of them.

DVC follows no imports, so the files a stage depends on are listed in dvc.yaml; a test compares
that list with the closure computed here.
"""

from __future__ import annotations

import ast
import hashlib
import json
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np

# They hold names or wiring only; a change in them must not re-run finished cells.
EXEMPT_FILES = ("stages.py", "track.py", "cli.py", "registry.py", "__init__.py")


def source_root() -> Path:
    """The folder `src` that holds this package."""
    return Path(__file__).resolve().parent.parent


def import_closure(*modules: str, src: Path | None = None) -> list[Path]:
    """Files below `src` that `modules` import, directly or not, themselves included.

    Imports inside functions count; those under `if TYPE_CHECKING` and EXEMPT_FILES do not.

    Parameters
    ----------
    modules
        Dotted names inside the package, e.g. ``sonolens.studies.digits.train``.

    Returns
    -------
    list of Path
        Sorted absolute paths.

    Raises
    ------
    ModuleNotFoundError
        If a named module has no file.
    """
    src = (src or source_root()).resolve()
    found: set[Path] = set()
    waiting = [_required_file(src, module) for module in modules]
    while waiting:
        path = waiting.pop()
        if path in found or path.name in EXEMPT_FILES:
            continue
        found.add(path)
        waiting += _imports_of(path, src)
    return sorted(found)


def _required_file(src: Path, module: str) -> Path:
    path = _module_file(src, module)
    if path is None:
        raise ModuleNotFoundError(f"{module}: no such module below {src}")
    return path


def _module_file(src: Path, module: str) -> Path | None:
    base = src.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports_of(path: Path, src: Path) -> list[Path]:
    package = path.relative_to(src).parent.parts
    names = _imported_names(path.read_text(encoding="utf-8"), package)
    ours = [name for name in names if name.split(".")[0] == "sonolens"]
    return [file for name in ours if (file := _module_file(src, name)) is not None]


@lru_cache(maxsize=1024)
def _imported_names(text: str, package: tuple[str, ...]) -> tuple[str, ...]:
    """Dotted names that a module of `package` may import, and those that may be attributes."""
    names: set[str] = set()
    for node in _runtime_nodes(ast.parse(text)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return tuple(sorted(names))


def _runtime_nodes(tree: ast.AST) -> list[ast.AST]:
    nodes: list[ast.AST] = []
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) in (
            "TYPE_CHECKING",
            "typing.TYPE_CHECKING",
        ):
            for other in child.orelse:
                nodes += [other, *_runtime_nodes(other)]
            continue
        nodes += [child, *_runtime_nodes(child)]
    return nodes


def file_digest(path: Path) -> str:
    """MD5 of a file, as DVC writes it; of a folder, MD5 over its sorted relative names and MD5s."""
    if path.is_dir():
        parts = [
            f"{file.relative_to(path).as_posix()}:{file_digest(file)}"
            for file in _files_below(path)
        ]
        return hashlib.md5("\n".join(parts).encode(), usedforsecurity=False).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _files_below(folder: Path) -> list[Path]:
    return sorted(
        file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    )


def code_key(*modules: str) -> dict[str, str]:
    """MD5 of every file in the import closure of `modules`, by path relative to `src`."""
    src = source_root()
    return {
        path.relative_to(src).as_posix(): file_digest(path) for path in import_closure(*modules)
    }


def content_key(**parts: Any) -> str:
    """SHA-256 of the canonical JSON of `parts`: equal parts, equal key, on every machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_key_text)
    return hashlib.sha256(text.encode()).hexdigest()


def _key_text(part: Any) -> Any:
    if isinstance(part, PurePath):
        return part.as_posix()
    if isinstance(part, (np.bool_, np.integer, np.floating)):
        return part.item()
    # The text of an array is shortened, that of a set or an object differs from run to run.
    raise TypeError(
        f"content_key: found a {type(part).__name__}, need numbers, text, paths, lists or mappings"
    )
