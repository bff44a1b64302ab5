"""The launcher and the stage runner, on a toy project with one study."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import types
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from pydantic import Field

from sonolens import keys, params, pipeline, stages
from sonolens.store import StoreError

ROOT = Path(__file__).resolve().parents[1]
RUNTIME = """
runtime:
  threads: 1
  workers: 1
  engine: serial
  dask_address: null
  device: cpu
  tracking: {enabled: false, system_metrics_interval_s: 1.0}
common: {seed: 7}
toy: {source: bells, make: {n: 3}}
"""
DVC = """
stages:
  toy-make:
    cmd: python src/stage.py toy make
    deps: ["data/raw/${toy.source}"]
    params: [toy.make]
    outs: [data/toy/values]
    metrics: [metrics/toy/summary.json: {cache: false}]
  toy-make-big:
    cmd: python src/stage.py toy make big
    outs: [data/toy/big]
"""
PARAMS = """
from pydantic import Field
from sonolens.params import Section

class Make(Section):
    n: int = Field(ge=1)

class Params(Section):
    source: str
    make: Make
"""
MAKE = """
import time
from sonolens.store import StoreError, write_json

def run(params, files, record):
    text = (files.dep("data/raw/bells") / "a.txt").read_text()
    folder = files.out("data/toy/values")
    folder.mkdir()
    (folder / "a.txt").write_text(text * params.study.make.n)
    if text == "ours":
        raise StoreError("a.txt: damaged; bring it back")
    if text.startswith("slow"):
        try:
            time.sleep(600)
        finally:
            if text.endswith("end"):
                print("ending", flush=True)
                time.sleep(1)
                print("ended", flush=True)
    if text == "bug":
        raise ZeroDivisionError("nobody expected this")
    values = {"n": params.study.make.n, "seed": params.common.seed}
    write_json(files.out("metrics/toy/summary.json"), values)
"""


def lay_out(root: Path) -> Path:
    (root / "data" / "raw" / "bells").mkdir(parents=True)
    (root / "data" / "raw" / "bells" / "a.txt").write_text("ding ")
    (root / "params.yaml").write_text(RUNTIME)
    (root / "dvc.yaml").write_text(DVC)
    return root


def files_of(root: Path) -> dict[str, str]:
    places = [root / "data" / "toy", root / "metrics"]
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for place in places
        for path in place.rglob("*")
        if path.is_file()
    }


def staged(root: Path) -> list[str]:
    return [path.name for path in (root / ".dvc/tmp/sonolens/staging").glob("*")]


# --- In this process ---


class ToySection(params.Section):
    n: int = Field(ge=1)


class ToyParams(params.Section):
    source: str
    make: ToySection


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Root of the toy project, in whose place `stages` runs; `toy.stage` is what the stage does."""
    root = lay_out(tmp_path)
    events: list[tuple] = []

    def work(given, files, record):
        events.append(("run", given, record))
        files.out("data/toy/values").write_text("made")
        files.out("metrics/toy/summary.json").write_text("{}")

    @contextmanager
    def open_record(where, spec, values, **names):
        events.append(("open", where, spec.name, names))
        try:
            yield "record"
        except BaseException as error:
            events.append(("failed", type(error).__name__))
            raise
        events.append(("closed",))

    def note_stage(where, spec, values, started, ended, **names):
        events.append(("note", spec.name, started <= ended))

    module = types.SimpleNamespace(run=work)
    monkeypatch.setitem(
        sys.modules, "sonolens.studies.toy.params", types.SimpleNamespace(Params=ToyParams)
    )
    monkeypatch.setitem(sys.modules, "sonolens.studies.toy.make", module)
    track = types.SimpleNamespace(
        open_record=open_record, note_stage=note_stage, LIVE_STAGES=("train",)
    )
    monkeypatch.setitem(sys.modules, "sonolens.track", track)
    monkeypatch.setattr(stages, "studies", lambda: ["toy"])
    monkeypatch.setattr(stages, "guard", lambda root: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(root)
    return types.SimpleNamespace(root=root, stage=module, events=events)


def test_a_stage_that_runs_takes_back_that_its_study_is_published(toy):
    published = toy.root / "metrics" / "toy" / "published.json"
    other = toy.root / "metrics" / "other" / "published.json"
    for path in (published, other):
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    assert stages.main(["toy", "make"]) == 0
    assert not published.exists()
    assert other.exists()


def test_a_stage_gets_its_params_files_and_record(toy):
    assert stages.main(["toy", "make"]) == 0
    kinds = [event[0] for event in toy.events]
    assert kinds == ["open", "run", "closed", "note"]
    assert toy.events[0][1:] == (
        toy.root,
        "toy-make",
        {"study": "toy", "stage": "make", "cell": None},
    )
    given, record = toy.events[1][1:]
    assert record == "record"
    assert given.study == ToyParams(source="bells", make=ToySection(n=3))
    assert given.common.seed == 7
    assert given.runtime.engine == "serial"
    assert not hasattr(given, "digits")
    assert files_of(toy.root) == {"data/toy/values": "made", "metrics/toy/summary.json": "{}"}
    assert staged(toy.root) == []


def test_the_key_of_a_stage_is_one_of_its_params_and_inputs_alone(toy):
    def key(path: str = "params.yaml", old: str = "", new: str = "") -> str:
        found = []

        def look(given, files, record):
            found.append(files.key)
            files.out("data/toy/values").write_text("made")
            files.out("metrics/toy/summary.json").write_text("{}")

        toy.stage.run = look
        kept = (toy.root / path).read_text()
        (toy.root / path).write_text(kept.replace(old, new))
        stages.run(toy.root, "toy", "make")
        (toy.root / path).write_text(kept)
        return found[0]

    first = key()
    assert key(old="workers: 1", new="workers: 2") == key(old="seed: 7", new="seed: 8") == first
    assert (
        len({first, key(old="n: 3", new="n: 4"), key("data/raw/bells/a.txt", "ding", "dong")}) == 3
    )


def test_a_cell_is_part_of_the_stage_name(toy):
    toy.stage.run = lambda given, files, record: files.out("data/toy/big").write_text("big")
    assert stages.main(["toy", "make", "big"]) == 0
    assert toy.events[0][2:] == ("toy-make-big", {"study": "toy", "stage": "make", "cell": "big"})
    assert files_of(toy.root) == {"data/toy/big": "big"}


def test_an_unknown_stage_is_named_with_those_there_are(toy, capsys):
    assert stages.main(["toy", "mke"]) == 1
    assert (
        capsys.readouterr().err
        == "toy-mke: dvc.yaml: no stage toy-mke; it has toy-make, toy-make-big\n"
    )
    with pytest.raises(SystemExit) as caught:
        stages.main(["toys", "make"])
    assert caught.value.code == 2
    assert "invalid choice: 'toys'" in capsys.readouterr().err


def test_missing_inputs_are_named_with_three_ways_out(toy, capsys):
    shutil.rmtree(toy.root / "data" / "raw" / "bells")
    assert stages.main(["toy", "make"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("toy-make: missing input data/raw/bells; `dvc repro toy-make` makes")
    assert "`dvc checkout`" in message
    assert "`sonolens data list`" in message
    assert toy.events == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n: 3", "n: 0", "toy.make.n: found 0; input should be greater than or equal to 1"),
        ("n: 3", "nn: 3", "toy.make.nn: unknown key; did you mean n?"),
        ("seed: 7", "sed: 7", "common.sed: unknown key; did you mean seed?"),
        ("common: {seed: 7}", "common: {seed: 7", "not valid YAML"),
    ],
)
def test_wrong_params_stop_before_anything_is_done(toy, capsys, old, new, message):
    path = toy.root / "params.yaml"
    path.write_text(path.read_text().replace(old, new))
    assert stages.main(["toy", "make"]) == 1
    assert message in capsys.readouterr().err
    assert toy.events == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(StoreError("ours"), 1), (KeyboardInterrupt(), 130), (ZeroDivisionError("bug"), None)],
)
def test_a_stage_that_fails_leaves_old_outputs_and_no_staging(toy, capsys, error, status):
    stages.main(["toy", "make"])
    before = files_of(toy.root)
    toy.events.clear()

    def fails(given, files, record):
        files.out("data/toy/values").write_text("half")
        files.out("metrics/toy/summary.json").write_text("half")
        raise error

    toy.stage.run = fails
    if status is None:
        with pytest.raises(ZeroDivisionError, match="bug"):
            stages.main(["toy", "make"])
    else:
        assert stages.main(["toy", "make"]) == status
        word = {
            1: "toy-make: ours\n",
            130: "toy-make: interrupted; run the same command again to go on\n",
        }[status]
        assert capsys.readouterr().err == word
    assert [event[0] for event in toy.events] == ["open", "failed"]
    assert files_of(toy.root) == before
    assert staged(toy.root) == []


def test_a_stage_that_forgets_an_output_fails_and_counts_as_failed(toy):
    toy.stage.run = lambda given, files, record: files.out("data/toy/values").write_text(
        "one of two"
    )
    with pytest.raises(RuntimeError, match=r"toy-make did not write metrics/toy/summary\.json"):
        stages.main(["toy", "make"])
    assert toy.events[-1] == ("failed", "RuntimeError")
    assert files_of(toy.root) == {}


def test_a_second_run_of_the_same_stage_is_refused(toy, capsys):
    inner = []

    def again(given, files, record):
        inner.append(stages.main(["toy", "make"]))
        files.out("data/toy/values").write_text("first")
        files.out("metrics/toy/summary.json").write_text("{}")

    toy.stage.run = again
    assert stages.main(["toy", "make"]) == 0
    assert inner == [1]
    assert (
        f"toy-make: process {os.getpid()} runs this stage in this folder; wait for its end or stop"
        in capsys.readouterr().err
    )
    assert files_of(toy.root)["data/toy/values"] == "first"
    toy.stage.run = lambda given, files, record: None
    with pytest.raises(RuntimeError, match="did not write"):  # the lock was given back
        stages.main(["toy", "make"])


def test_a_timeout_inside_a_stage_is_not_taken_for_a_second_run(toy):
    from filelock import Timeout

    def waits(given, files, record):
        raise Timeout("another.lock")

    toy.stage.run = waits
    with pytest.raises(Timeout):
        stages.main(["toy", "make"])


def test_two_checkouts_that_share_scratch_do_not_lock_each_other(toy, tmp_path):
    clone = lay_out(tmp_path / ".dvc" / "tmp" / "exps" / "tmp1")

    def also_there(given, files, record):
        if files.root == toy.root:
            stages.run(clone, "toy", "make")
        files.out("data/toy/values").write_text(files.root.name)
        files.out("metrics/toy/summary.json").write_text("{}")

    toy.stage.run = also_there
    stages.run(toy.root, "toy", "make")
    assert files_of(clone)["data/toy/values"] == "tmp1"
    assert len(list((toy.root / ".dvc/tmp/sonolens/locks").glob("*.lock"))) == 2


def test_studies_are_the_folders_with_params():
    assert "digits" in stages.studies()
    assert set(stages.params_model().model_fields) == {"runtime", "common", *stages.studies()}


# --- As a process of its own ---


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A mini project: the launcher, the modules below the studies, and one study."""
    root = lay_out(tmp_path_factory.mktemp("project"))
    package = root / "src" / "sonolens"
    (package / "studies" / "toy").mkdir(parents=True)
    shutil.copy(ROOT / "src" / "stage.py", root / "src")
    for path in (ROOT / "src" / "sonolens").glob("*.py"):
        shutil.copy(path, package)
    for place in (package / "studies", package / "studies" / "toy"):
        (place / "__init__.py").write_text("")
    (package / "studies" / "toy" / "params.py").write_text(PARAMS)
    (package / "studies" / "toy" / "make.py").write_text(MAKE)
    return root


def launch(root: Path, *words: str, script: Path | None = None, flags: tuple[str, ...] = ()):
    """Run the launcher as DVC does: `python src/stage.py …` in the root."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, *flags, str(script or Path("src", "stage.py")), *words]
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=120
    )


def test_launcher_runs_a_stage_and_tells_errors_of_ours_from_others(project):
    done = launch(project, "toy", "make")
    assert (done.returncode, done.stderr) == (0, "")
    first = files_of(project)
    assert first["data/toy/values/a.txt"] == "ding ding ding "
    assert first["metrics/toy/summary.json"] == '{\n  "n": 3,\n  "seed": 7\n}\n'
    bell = project / "data" / "raw" / "bells" / "a.txt"
    try:
        bell.write_text("ours")
        done = launch(project, "toy", "make")
        assert (done.returncode, done.stderr) == (1, "toy-make: a.txt: damaged; bring it back\n")
        bell.write_text("bug")
        done = launch(project, "toy", "make")
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert done.stderr.endswith("ZeroDivisionError: nobody expected this\n")
    finally:
        bell.write_text("ding ")
    assert files_of(project) == first
    assert staged(project) == []


def lock_of(project: Path) -> Path:
    place = hashlib.sha256(str(project.resolve()).encode()).hexdigest()[:12]
    return pipeline.scratch(project, "locks") / f"toy-make-{place}.lock"


def test_launcher_refuses_while_another_process_holds_the_stage(project):
    lock = lock_of(project)
    with FileLock(lock):
        lock.with_suffix(".pid").write_text(str(os.getpid()))
        done = launch(project, "toy", "make")
    assert done.returncode == 1
    assert done.stderr.startswith(f"toy-make: process {os.getpid()} runs this stage")


# Stands for `dvc`, as the stage sees it: a process that starts it through a shell.
DVC_LIKE = """
import os, subprocess, sys
os.environ["DVC_STAGE"] = "toy-make"
subprocess.run(["/bin/sh", "-c", f"{sys.executable} src/stage.py toy make; true"])
"""


def wait_for(condition, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_stage_ends_with_the_dvc_that_started_it_and_the_next_one_waits_for_it(project):
    bell = project / "data" / "raw" / "bells" / "a.txt"
    staging = project / ".dvc/tmp/sonolens/staging"
    before = files_of(project)
    bell.write_text("slow")
    try:
        parent = subprocess.Popen([sys.executable, "-c", DVC_LIKE], cwd=project)
        wait_for(lambda: list(staging.glob("toy-make-*/data/toy/values/a.txt")))
        (stage,) = (int(path.name.rpartition("-")[2]) for path in staging.iterdir())
        parent.kill()
        bell.write_text("ding ")
        done = launch(project, "toy", "make")
        parent.wait()
    finally:
        bell.write_text("ding ")
    assert (done.returncode, done.stderr) == (0, "")
    assert not psutil.pid_exists(stage)
    assert staged(project) == []
    assert {name: text for name, text in files_of(project).items() if name in before} == before


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_second_interrupt_does_not_break_off_the_end(project):
    bell = project / "data" / "raw" / "bells" / "a.txt"
    staging = project / ".dvc/tmp/sonolens/staging"
    bell.write_text("slow end")
    try:
        process = subprocess.Popen(
            [sys.executable, "src/stage.py", "toy", "make"], cwd=project,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        wait_for(lambda: list(staging.glob("toy-make-*/data/toy/values/a.txt")))
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "ending\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        bell.write_text("ding ")
    assert stdout == "ended\n"
    assert stderr == "toy-make: interrupted; run the same command again to go on\n"
    assert process.returncode == 130
    assert staged(project) == []


def test_leftovers_of_killed_processes_go_at_the_next_start_of_their_stage(toy):
    place = toy.root / "data" / "toy"
    (place / ".values.4711.old").mkdir(parents=True)
    (place / ".values.4711.old" / "a.txt").write_text("before")
    (place / ".values.4711.part").write_text("half")
    other = place / ".big.4711.part"
    other.write_text("of another stage")
    digest = keys.dvc_digest(place)
    stages.main(["toy", "make"])
    assert sorted(path.name for path in place.iterdir()) == [".big.4711.part", "values"]
    (place / "values").unlink()
    assert keys.dvc_digest(place) == digest  # what is left does not count, as in .dvcignore


def test_launcher_refuses_the_package_of_another_checkout(project, tmp_path):
    clone = tmp_path / "clone"
    shutil.copytree(project, clone, ignore=shutil.ignore_patterns("__pycache__"))
    done = launch(clone, "toy", "make", script=project / "src" / "stage.py")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"the imported package lies in {project / 'src' / 'sonolens'}" in done.stderr
    assert f"need {clone / 'src' / 'sonolens'}" in done.stderr


def test_launcher_names_a_python_that_lacks_the_packages(project):
    done = launch(project, "toy", "make", flags=("-S",))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "activate the environment made by `make repro`" in done.stderr
    assert sys.executable in done.stderr


def test_help_is_quick_and_the_environment_is_set_before_torch():
    probe = """
        import os, runpy, sys
        sys.argv = ["src/stage.py", "--help"]
        try:
            runpy.run_path("src/stage.py", run_name="__main__")
        except SystemExit as end:
            assert end.code == 0, end.code
        slow = {"torch", "mlflow", "lightning", "sklearn", "pandas", "matplotlib"}
        loaded = sorted(slow & set(sys.modules))
        assert not loaded, loaded
        assert os.environ["PYTHONPATH"] == os.path.realpath("src")
        assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "OMP_WAIT_POLICY", "MLFLOW_DISABLE_TELEMETRY")
    }
    command = [
        sys.executable,
        "-c",
        'import sys; sys.path.insert(0, "src")\n' + textwrap.dedent(probe),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "usage: python src/stage.py" in done.stdout
    assert "digits" in done.stdout
