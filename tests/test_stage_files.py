"""dvc.yaml as data, the staging of outputs, and where the user's checkout lies."""

import subprocess
from pathlib import Path

import pytest

from sonolens import pipeline
from sonolens.params import ParamsError
from sonolens.pipeline import StageSpec, main_root, open_files, scratch

ROOT = Path(__file__).resolve().parents[1]
DVC = """
stages:
  toy-make:
    cmd: python src/stage.py toy make
    deps: ["data/raw/${toy.source}", src/sonolens/store.py]
    params: [toy.make, common.seed]
    outs:
      - data/toy/make/values
      - metrics/toy/table.csv: {cache: false}
    metrics:
      - metrics/toy/${toy.deep.name}-${toy.deep.n}.json: {cache: false}
    plots:
      - plots/toy/curve.csv: {cache: false, x: step}
  toy-read:
    cmd: python src/stage.py toy read
"""
PARAMS = "toy: {source: bells, make: {n: 1}, deep: {name: x, n: 2}}\ncommon: {seed: 0}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dvc.yaml").write_text(DVC)
    (folder / "params.yaml").write_text(PARAMS)
    return folder


def spec(
    outs: tuple[str, ...] = ("data/a", "data/b.txt"), deps: tuple[str, ...] = ("data/raw/x",)
) -> StageSpec:
    return StageSpec("toy-make", "", deps, (), outs, ("metrics/m.json",), ())


def tree(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in root.rglob("*")
        if path.is_file()
    }


# --- dvc.yaml ---


def test_stages_come_in_file_order_with_names_filled_in(root):
    stages = pipeline.load_pipeline(root)
    assert list(stages) == ["toy-make", "toy-read"]
    made = stages["toy-make"]
    assert made == StageSpec(
        name="toy-make",
        cmd="python src/stage.py toy make",
        deps=("data/raw/bells", "src/sonolens/store.py"),
        params=("toy.make", "common.seed"),
        outs=("data/toy/make/values", "metrics/toy/table.csv"),
        metrics=("metrics/toy/x-2.json",),
        plots=("plots/toy/curve.csv",),
    )
    assert made.outputs == (*made.outs, *made.metrics, *made.plots)
    assert made.code == ("src/sonolens/store.py",)
    assert made.data == ("data/raw/bells",)
    assert stages["toy-read"].outputs == stages["toy-read"].deps == ()


def test_given_params_win_over_the_file(root):
    params = {"toy": {"source": "horns", "deep": {"name": "y", "n": 3}}}
    assert pipeline.load_pipeline(root, params)["toy-make"].deps[0] == "data/raw/horns"


@pytest.mark.parametrize("params", [{}, {"toy": {}}, {"toy": "text"}, {"toy": None}])
def test_a_name_that_is_no_key_of_params_is_named(root, params):
    with pytest.raises(
        ParamsError,
        match=r"dvc\.yaml: \$\{toy\.source\} in data/raw/\$\{toy\.source\} names no key",
    ):
        pipeline.load_pipeline(root, params)


def test_a_file_without_stages_has_none(root):
    (root / "dvc.yaml").write_text("vars: [1]\n")
    assert pipeline.load_pipeline(root) == {}


def test_the_committed_pipeline_agrees_with_dvc():
    stages = pipeline.load_pipeline(ROOT)
    dvc = pytest.importorskip("dvc.repo")
    for stage in dvc.Repo(str(ROOT), uninitialized=True).index.stages:
        mine = stages[stage.name]
        assert [out.def_path for out in stage.outs if not (out.metric or out.plot)] == list(
            mine.outs
        )
        assert {out.def_path for out in stage.outs} == set(mine.outputs)
        assert {dep.def_path for dep in stage.deps if not hasattr(dep, "params")} == set(mine.deps)


# --- Reading and writing ---


def test_only_declared_inputs_are_read(tmp_path):
    with open_files(tmp_path, spec(deps=("data/raw/x", "data/one.txt"))) as files:
        assert files.dep("data/raw/x") == tmp_path / "data/raw/x"
        assert files.dep("data/raw/x/deep/a.wav") == tmp_path / "data/raw/x/deep/a.wav"
        for path in ("data/raw", "data/raw/xy", "data/two.txt", "data/one.txtx", "data/b.txt"):
            with pytest.raises(
                KeyError, match=f"stage toy-make reads {path}, which is not among its deps"
            ):
                files.dep(path)


def test_only_declared_outputs_are_written(tmp_path):
    with open_files(tmp_path, spec()) as files:
        assert files.out("metrics/m.json").parent.is_dir()
        assert tmp_path / "metrics" not in files.out("metrics/m.json").parents
        for path in ("data/a/inside", "data", "data/c"):
            with pytest.raises(
                KeyError, match=f"stage toy-make writes {path}, which is not among its outs"
            ):
                files.out(path)


def write_all(files: pipeline.StageFiles, text: str, last: bool = True) -> None:
    folder = files.out("data/a")
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "x.txt").write_text(text)
    files.out("data/b.txt").write_text(text)
    if last:
        files.out("metrics/m.json").write_text(text)


def test_commit_brings_all_outputs_and_replaces_whole_folders(tmp_path):
    with open_files(tmp_path, spec()) as files:
        write_all(files, "one")
        assert {name for name in tree(tmp_path) if not name.startswith(".dvc")} == set()
        files.commit()
    assert tree(tmp_path) == {
        "data/a/deep/x.txt": "one",
        "data/b.txt": "one",
        "metrics/m.json": "one",
    }
    (tmp_path / "data/a/stray.txt").write_text("of an older run")
    with open_files(tmp_path, spec()) as files:
        write_all(files, "two")
        files.commit()
    assert tree(tmp_path) == {
        "data/a/deep/x.txt": "two",
        "data/b.txt": "two",
        "metrics/m.json": "two",
    }


def test_a_missing_output_stops_the_commit_before_the_first_move(tmp_path):
    with open_files(tmp_path, spec()) as files:
        write_all(files, "one")
        files.commit()
    before = tree(tmp_path)
    with open_files(tmp_path, spec()) as files:
        write_all(files, "two", last=False)
        files.out("metrics/m.json")
        with pytest.raises(RuntimeError, match=r"stage toy-make did not write metrics/m\.json"):
            files.commit()
    assert tree(tmp_path) == before


def test_a_commit_that_fails_half_way_brings_the_old_outputs_back(tmp_path):
    with open_files(tmp_path, spec()) as files:
        write_all(files, "one")
        files.commit()
    (tmp_path / "metrics" / "m.json").unlink()
    (tmp_path / "metrics").rmdir()
    (tmp_path / "metrics").write_text("a file where a folder is needed")
    before = tree(tmp_path)
    with open_files(tmp_path, spec()) as files:
        write_all(files, "two")
        with pytest.raises(OSError, match="metrics"):
            files.commit()
    assert tree(tmp_path) == before


def test_nothing_is_left_of_a_stage_that_fails_or_does_not_commit(tmp_path):
    with pytest.raises(ValueError, match="inside"), open_files(tmp_path, spec()) as files:  # noqa: PT012
        write_all(files, "one")
        raise ValueError("inside")
    with open_files(tmp_path, spec()) as files:
        write_all(files, "one")
    assert tree(tmp_path) == {}
    assert list((tmp_path / ".dvc/tmp/sonolens/staging").iterdir()) == []


def test_what_a_killed_run_left_is_removed_but_not_that_of_other_stages(tmp_path):
    staging = tmp_path / ".dvc/tmp/sonolens/staging"
    for name in ("toy-make-1", "toy-make-more-1", "toy-makes-1"):
        (staging / name / "data").mkdir(parents=True)
    with open_files(tmp_path, spec()):
        pass
    assert sorted(path.name for path in staging.iterdir()) == ["toy-make-more-1", "toy-makes-1"]


# --- The main checkout ---


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=Toy", "-c", "user.email=toy@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "with space" / "checkout"
    folder.mkdir(parents=True)
    git(folder, "init")
    (folder / "a.txt").write_text("a")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    return folder


def test_a_checkout_is_its_own_main_root(checkout):
    assert main_root(checkout) == checkout


@pytest.mark.parametrize("place", [".dvc/tmp/exps/tmpab12", ".dvc/tmp/exps/standalone/tmpab12"])
def test_an_experiment_in_a_temporary_clone_belongs_to_the_checkout_that_holds_it(checkout, place):
    clone = checkout / place
    clone.parent.mkdir(parents=True)
    git(checkout, "clone", str(checkout), str(clone))
    assert main_root(clone) == checkout
    assert scratch(clone, "ckpt", "key") == checkout / ".dvc/tmp/sonolens/ckpt/key"
    assert (checkout / ".dvc/tmp/sonolens/ckpt/key").is_dir()


@pytest.mark.parametrize(
    "place", [".dvc/tmp/exps", ".dvc/tmp/other/tmpab12", "dvc/tmp/exps/x", ".dvc/exps/tmp/x"]
)
def test_like_names_are_no_experiments(tmp_path, place):
    folder = tmp_path / place
    folder.mkdir(parents=True)
    assert main_root(folder) == folder


def test_a_linked_worktree_belongs_to_its_main_checkout(checkout, tmp_path):
    git(checkout, "worktree", "add", str(tmp_path / "linked"), "HEAD")
    assert main_root(tmp_path / "linked") == checkout
    experiment = tmp_path / "linked" / ".dvc/tmp/exps/tmp1"
    experiment.mkdir(parents=True)
    assert main_root(experiment) == checkout


def test_a_project_below_a_repository_is_its_own_main_root(checkout, tmp_path):
    (checkout / "projects" / "sonolens").mkdir(parents=True)
    (checkout / "projects" / "sonolens" / "b.txt").write_text("b")
    assert main_root(checkout / "projects" / "sonolens") == checkout / "projects" / "sonolens"
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "second")
    git(checkout, "worktree", "add", str(tmp_path / "linked"), "HEAD")
    assert main_root(tmp_path / "linked/projects/sonolens") == checkout / "projects" / "sonolens"


def test_a_folder_without_git_is_its_own_main_root(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert main_root(tmp_path) == tmp_path
    monkeypatch.chdir(tmp_path)
    assert main_root(Path()) == tmp_path


def test_no_git_program_is_needed(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert main_root(checkout) == checkout


def test_the_repository_of_a_git_hook_is_not_taken_for_ours(checkout, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    git(tmp_path / "other", "init")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert main_root(checkout) == checkout


def test_a_link_to_a_checkout_leads_to_it(checkout, tmp_path):
    (tmp_path / "link").symlink_to(checkout, target_is_directory=True)
    assert main_root(tmp_path / "link") == checkout
