"""dvc.yaml against the code: names, commands, dependencies, params, outputs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sonolens import params as base
from sonolens.explain import registry as explain_registry
from sonolens.pipeline import StageSpec, load_pipeline
from sonolens.score import registry as score_registry
from sonolens.sources import import_closure
from sonolens.stages import load_params, studies

ROOT = Path(__file__).resolve().parent.parent
STAGES = {
    *("prepare", "features", "train", "evaluate", "explain", "score", "report", "publish"),
    "prepare_image",
    *("tokens", "token_train", "divergence", "influence", "intervene", "vocoder", "speak"),
}
# `runtime` says where and how fast, never what.
EXEMPT_PARAMS = ("runtime",)


def command_of(spec: StageSpec) -> tuple[str, str, str | None]:
    """Study, stage and cell of a stage's command; asserts its form."""
    match = re.fullmatch(r"python src/stage\.py (\w+) (\w+)(?: ([\w.-]+))?", spec.cmd)
    assert match, f"{spec.name}: found `{spec.cmd}`, need `python src/stage.py STUDY STAGE [CELL]`"
    return match[1], match[2], match[3]


def missing_deps(spec: StageSpec, src: Path) -> list[str]:
    """Files that the stage's code stands on and that no dependency covers."""
    study, stage, _ = command_of(spec)
    needed = [
        f"src/{path.relative_to(src).as_posix()}"
        for path in import_closure(f"sonolens.studies.{study}.{stage}", src=src)
    ]
    return [path for path in needed if not any(covers(dep, path) for dep in spec.deps)]


def covers(outer: str, inner: str) -> bool:
    """Whether a file or folder is another one or holds it."""
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def overlaps(pipeline: dict[str, StageSpec]) -> list[str]:
    """Outputs that lie in one another."""
    outputs = [(path, name) for name, spec in pipeline.items() for path in spec.outputs]
    return [
        f"{path} ({name}) and {other} ({owner})"
        for at, (path, name) in enumerate(outputs)
        for other, owner in outputs[at + 1 :]
        if covers(path, other) or covers(other, path)
    ]


def uncovered_params(values: dict[str, Any], pipeline: dict[str, StageSpec]) -> list[str]:
    """Leaves of params.yaml on which no stage depends."""
    listed = {
        name
        for spec in pipeline.values()
        if not spec.name.endswith("-publish")
        for name in spec.params
    }
    return [
        key
        for key in base.flatten(values)
        if key.split(".")[0] not in EXEMPT_PARAMS
        and not any(key == name or key.startswith(f"{name}.") for name in listed)
    ]


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    return base.load_yaml(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def pipeline(values: dict[str, Any]) -> dict[str, StageSpec]:
    return load_pipeline(ROOT, values)


def test_names_and_commands_agree(pipeline: dict[str, StageSpec]) -> None:
    for name, spec in pipeline.items():
        study, stage, cell = command_of(spec)
        assert name == "-".join(part for part in (study, stage, cell) if part)
        assert study in studies()
        assert stage in STAGES
        assert (ROOT / f"src/sonolens/studies/{study}/{stage}.py").is_file()


def test_code_dependencies_cover_the_imports(pipeline: dict[str, StageSpec]) -> None:
    report = {
        name: missing
        for name, spec in pipeline.items()
        if (missing := missing_deps(spec, ROOT / "src"))
    }
    lines = [
        f"{name}:\n" + "".join(f"      - {path}\n" for path in paths)
        for name, paths in report.items()
    ]
    assert not report, "missing in dvc.yaml, deps of\n" + "".join(lines)


def test_stages_depend_on_the_methods_and_metrics_they_may_call(
    pipeline: dict[str, StageSpec],
) -> None:
    methods = [row.module for row in explain_registry.METHODS.values()]
    metrics = [row.module for row in score_registry.METRICS.values()]
    needed = {"explain": methods, "score": methods + metrics}
    missing = []
    for name, spec in pipeline.items():
        modules = needed.get(command_of(spec)[1], [])
        files = [
            f"src/{path.relative_to(ROOT / 'src').as_posix()}" for path in import_closure(*modules)
        ]
        missing += [
            f"{name}: {path}" for path in files if not any(covers(dep, path) for dep in spec.deps)
        ]
    assert not missing


def test_code_dependencies_exist(pipeline: dict[str, StageSpec]) -> None:
    gone = [
        f"{name}: {path}"
        for name, spec in pipeline.items()
        for path in spec.code
        if not (ROOT / path).exists()
    ]
    assert not gone


def test_data_dependencies_are_made_or_given(pipeline: dict[str, StageSpec]) -> None:
    made = [path for spec in pipeline.values() for path in spec.outputs]
    for name, spec in pipeline.items():
        for path in spec.data:
            # One file of an output folder, or the folder that holds several outputs.
            known = path.startswith("data/raw/") or any(
                covers(out, path) or covers(path, out) for out in made
            )
            assert known, f"{name} reads {path}, which no stage makes"


def test_every_param_is_a_dependency(
    values: dict[str, Any], pipeline: dict[str, StageSpec]
) -> None:
    assert not uncovered_params(values, pipeline), "no stage lists these keys under params"


def test_listed_params_exist(values: dict[str, Any], pipeline: dict[str, StageSpec]) -> None:
    flat = base.flatten(values)
    for name, spec in pipeline.items():
        for key in spec.params:
            assert key.split(".")[0] not in EXEMPT_PARAMS, f"{name}: {key} must not be a dependency"
            assert any(leaf == key or leaf.startswith(f"{key}.") for leaf in flat), (
                f"{name}: no key {key}"
            )


def test_publish_depends_on_all_that_its_key_is_made_of(pipeline: dict[str, StageSpec]) -> None:
    """Else an edit that changes no output gives the row another key and leaves it unfinished."""
    for name, publish in pipeline.items():
        if not name.endswith("-publish"):
            continue
        own = [spec for other, spec in pipeline.items() if other.startswith(name.split("-")[0])]
        code = {path for spec in own for path in spec.code}
        raw = {path for spec in own for path in spec.data if path.startswith("data/raw/")}
        listed = tuple(f"{path}/" for path in publish.deps)  # a folder stands for its files
        missing = {path for path in code | raw if not f"{path}/".startswith(listed)}
        assert not missing, f"{name}: add these to its deps"


def test_publish_follows_the_studies_whose_results_it_shows(pipeline: dict[str, StageSpec]) -> None:
    """Their keys are part of its key, and their published.json holds theirs."""
    for name, publish in pipeline.items():
        if not name.endswith("-publish"):
            continue
        study = name.split("-")[0]
        read = {path for other in pipeline.values() if other.name.startswith(f"{study}-")
                for path in other.data}  # fmt: skip
        others = {
            other.name.split("-")[0]
            for other in pipeline.values()
            for path in read
            if any(covers(out, path) for out in other.outputs)
        }
        needed = {f"metrics/{other}/published.json" for other in others - {study}}
        assert needed <= set(publish.deps), f"{name}: add these to its deps"


def test_outputs_do_not_overlap(pipeline: dict[str, StageSpec]) -> None:
    assert not overlaps(pipeline)


def test_outputs_lie_where_readers_look(pipeline: dict[str, StageSpec]) -> None:
    for name, spec in pipeline.items():
        study, stage, _ = command_of(spec)
        for path in spec.outputs:
            own = (
                rf"(data|models)/{study}/{stage}(/.+)?|metrics/{study}/.+"
                rf"|plots/{study}/(?!pages/).+|plots/{study}/pages/{stage}"
            )
            assert re.fullmatch(own, path), f"{name} writes {path}"


def test_every_study_ends_with_publish(pipeline: dict[str, StageSpec]) -> None:
    for study in {command_of(spec)[0] for spec in pipeline.values()}:
        assert f"{study}-publish" in pipeline


def test_params_and_profiles_are_valid() -> None:
    load_params(ROOT)
    for path in (ROOT / "profiles").glob("*.yaml"):
        done = subprocess.run(
            [sys.executable, "-m", "sonolens.cli", "params", "flags", path.stem],
            cwd=ROOT, env=environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("-S ")


def environment() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": str(ROOT / "src")}


@pytest.mark.parametrize("command", [["src/stage.py", "--help"], ["-m", "sonolens.cli", "--help"]])
def test_help_loads_no_torch(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = {
        line.rsplit("|", 1)[-1].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    heavy = {
        "torch",
        "torchvision",
        "lightning",
        "mlflow",
        "sklearn",
        "librosa",
        "matplotlib",
        "captum",
        "dvc",
    }
    assert not heavy & loaded


def test_the_checks_find_what_is_wrong(tmp_path: Path) -> None:
    package = tmp_path / "src" / "sonolens" / "studies" / "toy"
    package.mkdir(parents=True)
    (tmp_path / "src" / "sonolens" / "rng.py").write_text("")
    (package / "prepare.py").write_text("from sonolens import rng\n")
    (tmp_path / "params.yaml").write_text(
        "common: {seed: 0}\ntoy: {source: x, prepare: {size: 1}, unused: {a: 1}}\n"
    )
    stages = {
        "toy-prepare": {
            "cmd": "python src/stage.py toy prepare",
            "deps": ["data/raw/${toy.source}", "src/sonolens/studies/toy/prepare.py"],
            "params": ["toy.source", "toy.prepare", "common.seed"],
            "outs": ["data/toy/prepare"],
            "metrics": [{"metrics/toy/prepare.json": {"cache": False}}],
        },
        "toy-train": {"cmd": "python -m sonolens train", "outs": ["data/toy/prepare/splits.json"]},
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    pipeline = load_pipeline(tmp_path)
    assert "data/raw/x" in pipeline["toy-prepare"].deps
    assert missing_deps(pipeline["toy-prepare"], tmp_path / "src") == ["src/sonolens/rng.py"]
    assert uncovered_params(base.load_yaml(tmp_path / "params.yaml"), pipeline) == ["toy.unused.a"]
    assert overlaps(pipeline) == [
        "data/toy/prepare (toy-prepare) and data/toy/prepare/splits.json (toy-train)"
    ]
    with pytest.raises(AssertionError, match="need `python src/stage.py"):
        command_of(pipeline["toy-train"])
