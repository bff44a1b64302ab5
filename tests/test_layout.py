"""What the package looks like: names, who imports mlflow, who prints."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "sonolens"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
FOREIGN = {"captum", "mlflow", "torch", "librosa", "lightning", "dvc", "numpy", "pandas", "quantus"}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def nodes(path: Path) -> Iterator[ast.AST]:
    yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def imported(path: Path) -> set[str]:
    """Top-level names of the packages a file imports."""
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_no_module_hides_one_of_another_package() -> None:
    taken = sys.stdlib_module_names | FOREIGN
    hidden = [name_of(path) for path in MODULES if path.stem in taken]
    hidden += [name_of(path) for path in PACKAGE.rglob("*") if path.is_dir() and path.name in taken]
    assert not hidden


def test_no_module_is_called_utils() -> None:
    vague = {"utils", "util", "helpers", "helper", "misc", "common"}
    assert not [name_of(path) for path in PACKAGE.rglob("*") if path.stem in vague]


def test_only_track_imports_mlflow() -> None:
    assert [name_of(path) for path in MODULES if "mlflow" in imported(path)] == ["track.py"]


def test_nothing_prints_but_the_command_line() -> None:
    printing = {
        name_of(path)
        for path in MODULES
        for node in nodes(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    }
    # stages.py is the launcher: its one-line messages go to stderr.
    assert not {
        name
        for name in printing
        if not name.startswith("cli")
        and name not in ("stages.py",)
        and not name.endswith("/commands.py")
    }


def test_imports_are_absolute() -> None:
    relative = [
        name_of(path)
        for path in MODULES
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def test_the_library_seeds_no_global_generator() -> None:
    seeding = {
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        if path.name
        not in ("rng.py", "fit.py")  # fit seeds inside rng.forked, where dropout reads nothing else
        for node in nodes(path)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("np.random.seed", "torch.manual_seed", "random.seed")
    }
    assert not seeding


def test_every_folder_of_the_package_has_an_init() -> None:
    folders = {path.parent for path in MODULES}
    assert not [name_of(folder) for folder in folders if not (folder / "__init__.py").is_file()]
