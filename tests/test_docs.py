"""The docs say what is there: pages as rendered, links, commands and files that exist."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from sonolens import cli
from sonolens import params as base
from sonolens.pipeline import load_pipeline
from sonolens.report import docs, page_images
from sonolens.report.record import PRIVATE_COLUMNS, RESULTS
from sonolens.stages import params_model
from sonolens.studies.digits.front_end import front_end

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
STUDIES = sorted(base.load_yaml(ROOT / docs.SOURCE_TABLES))
SOURCE_ROWS = [row for study in STUDIES for row in docs.source_table(ROOT, study)]


def test_pages_are_as_rendered() -> None:
    assert not docs.check(ROOT), "run `sonolens docs render`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", text, re.M)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        assert not path or (page.parent / path).exists(), f"{page.name}: {target} leads nowhere"
        assert path or anchor in anchors, f"{page.name}: no heading for #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_no_machine(page: Path) -> None:
    assert not re.findall(
        r"(?<![\w.])/(?:home|work|tmp|root|Users)/\S*", page.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("row", SOURCE_ROWS, ids=lambda row: row["theirs"][:40])
def test_right_hand_side_of_the_source_tables_exists(row: dict[str, Any]) -> None:
    gone = [path for path in row["files"] if not (ROOT / path).is_file()]
    assert not gone
    assert row["stage"] in load_pipeline(ROOT)
    check_command(row["command"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_pages_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    lines = [
        line.removeprefix("$ ")
        for block in re.findall(r"```\w+\n(.*?)```", text, re.S)
        for line in block.splitlines()
    ]
    lines += re.findall(r"`([^`\n]+)`", text)
    for line in lines:
        for command in line.split("#")[0].split("&&"):
            if (
                re.match(r"(make|sonolens|dvc (repro|exp run)) \S", command.strip())
                and "…" not in command
            ):
                check_command(command.strip())


def check_command(command: str) -> None:
    """Targets, verbs, stages, keys and values exist and fit; capital words stand for something."""
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        asked = [
            word
            for word in words[1:]
            if "=" not in word and not word.startswith("-") and word != "|"
        ]
        assert set(asked) <= set(targets), command
        given = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        profile = given.get("PROFILE", "")
        if "repro" in asked and "|" not in profile:
            check_params(command, shlex.split(given.get("ARGS", "")), profile)
    elif words[0] == "sonolens":
        current: click.Command = typer.main.get_command(cli.app)
        for word in words[1:]:
            if not isinstance(current, click.Group) or word.isupper():
                break
            assert word in current.commands, f"{command}: no `{word}`"
            current = current.commands[word]
    else:
        check_params(command, words)
        for word in words[2:]:
            if re.fullmatch(r"[a-z_]+-[a-z_]+", word):
                assert word in load_pipeline(ROOT), f"{command}: dvc.yaml has no {word}"


def changed_params(changes: dict[str, Any]) -> dict[str, Any]:
    """params.yaml with flat `changes`; an unknown key is an error."""
    values = base.load_yaml(ROOT / "params.yaml")
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = values
        for section in sections:
            place = place[section]
        assert last in place, f"params.yaml has no {key}"
        place[last] = value
    return values


def profile_changes(profile: str) -> dict[str, Any]:
    path = ROOT / "profiles" / f"{profile}.yaml"
    return base.flatten(base.load_yaml(path)) if profile else {}


def check_params(command: str, words: list[str], profile: str = "") -> None:
    """params.yaml under the profile and the `-S` values of `words` is valid and can run."""
    pairs = [after.split("=", 1) for word, after in itertools.pairwise(words) if word == "-S"]
    changes = {key: yaml.safe_load(value) for key, value in pairs if not key.isupper()}
    values = changed_params(profile_changes(profile) | changes)
    digits = base.validate(values, params_model(), command).digits
    for size in digits.features.sizes.audio:
        front_end(digits, size)
    n_folds = min(digits.prepare.n_folds, digits.prepare_image.n_folds)
    assert max(digits.train.folds) < n_folds, command


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("dvc exp run -S digits.train.epoch=3", "no digits.train.epoch"),
        ("dvc exp run -S digits.train.epochs=none", "digits.train.epochs"),
        ("dvc exp run -S 'digits.features.sizes.audio=[128,32]'", "128 frames do not divide 8000"),
        ("dvc exp run -S 'digits.train.folds=[0,4]'", r"folds=\[0,4\]"),
        ('make repro PROFILE=full ARGS="-S digits.prepare.n_folds=5"', "n_folds=5"),
    ],
)
def test_commands_that_cannot_run_are_found(command: str, message: str) -> None:
    with pytest.raises((AssertionError, ValueError), match=message):
        check_command(command)


@pytest.mark.parametrize("page", ["README.md", "docs/digits.md"])
def test_pages_name_the_layout_of_own_folders(page: str) -> None:
    """As src/sonolens/data/corpora/folder.py reads it: label first."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "`label/speaker/*.wav`" in text
    assert "speaker/label" not in text


def test_the_published_profile_is_what_the_page_says() -> None:
    digits = base.validate(
        changed_params(profile_changes("published")), params_model(), "published"
    ).digits
    assert digits.features.sizes.audio == digits.features.sizes.image == [128, 32]
    assert (digits.train.architecture, digits.train.width) == ("alexnet_small", 64)
    assert (digits.train.epochs, digits.train.batch_size) == (50, 32)
    assert (digits.train.schedule, digits.train.learning_rate) == ("constant", 0.001)
    assert digits.train.weight_decay == 0
    assert not any(digits.train.augment.model_dump().values())
    assert digits.explain.n_steps == 50


def test_pictures_are_small() -> None:
    sizes = [path.stat().st_size for path in (ROOT / "docs" / "images").glob("*") if path.is_file()]
    assert sum(sizes) <= page_images.MAX_BYTES


def test_records_hold_groups_only() -> None:
    for path in (ROOT / RESULTS).glob("*/*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert (record["study"], record["name"]) == (path.parent.name, path.stem)
        assert record["command"]
        assert record["revision"]
        for rows in record["tables"].values():
            assert not [row for row in rows if PRIVATE_COLUMNS & set(row)]


def _interval(value: float, low: float, high: float) -> dict[str, float]:
    name = "accuracy_person"
    return {name: value, f"{name}_ci_low": low, f"{name}_ci_high": high}


def _score(*values: object) -> dict[str, object]:
    columns = ("method", "baseline", "metric", "value", "ci_low", "ci_high", "n_score", "n_nan")
    return dict(zip(columns, values, strict=True))


def _verdict(difference: str = "", first: str = "accuracy_person") -> str:
    """Template that compares the network with the reference."""
    tail = f', difference=["leakage", "{difference}"]' if difference else ""
    return (
        f'{{{{ verdict("toy", "a", ["summary", "{first}"], ["leakage", "accuracy_person"], '
        f'"This", "of B"{tail}) }}}}'
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A root with one template, one record and one study."""
    folder = tmp_path / docs.TEMPLATES
    folder.mkdir(parents=True)
    (tmp_path / "params.yaml").write_text("toy: {source: x, n: 3}\n")
    (folder / "params.yaml").write_text("toy: {toy.source: where from, toy.n: how many}\n")
    record = {
        "study": "toy",
        "name": "a",
        "params": {"toy.report.level": 0.9},
        "leakage": _interval(0.9, 0.8, 0.95)
        | {"win": 0.07, "win_ci_low": 0.01, "win_ci_high": 0.1}
        | {"loss": -0.07, "loss_ci_low": -0.1, "loss_ci_high": -0.01}
        | {"open": 0.07, "open_ci_low": -0.01, "open_ci_high": 0.1}
        | {"alone": 0.07, "alone_ci_low": None, "alone_ci_high": None},
        "summary": _interval(0.97, 0.934, 0.99)
        | {"n_person": 12, "n_item": 1200, "chance": 0.1}
        | {"far": 0.99, "far_ci_low": 0.98, "far_ci_high": 1.0}
        | {"alone": 0.99, "alone_ci_low": None, "alone_ci_high": None, "undefined": None},
        "tables": {
            "scores": [
                _score("saliency", None, "sparseness", 0.5, 0.4, 0.6, 49, 1),
                _score("ig", "silence", "mprt", None, None, None, 0, 50),
            ],
            "seeds": [
                {"model_seed": seed, "value": value} for seed, value in enumerate((0.2, 0.05, None))
            ],
        },
    }
    results = tmp_path / RESULTS / "toy"
    results.mkdir(parents=True)
    (results / "a.json").write_text(json.dumps(record))
    return tmp_path


def render(site: Path, template: str) -> str:
    (site / docs.TEMPLATES / "page.md.j2").write_text(template)
    return docs.render(site)["docs/page.md"]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ('{{ value_n("toy", "a", "accuracy_person") }}', "0.97 [0.93, 0.99], n = 12 persons"),
        ('{{ value("toy", "a", "accuracy_person", part="leakage") }}', "0.90 [0.80, 0.95]"),
        ('{{ value_n("toy", "b", "accuracy_person") }}', "not yet recorded"),
        ('{{ count("toy", "a", "n_item") }}', "1,200"),
        (
            '{{ score_table("toy", "a", ["sparseness", "mprt", "absent"]) }}',
            "| method | baseline | sparseness | mprt |\n| --- | --- | --- | --- |\n"
            "| `saliency` | – | 0.50 [0.40, 0.60] (2 % NaN) | – |\n"
            "| `ig` | silence | – | – (100 % NaN) |",
        ),
        (
            _verdict(),
            "This, against that of B: 0.97 against 0.90; "
            "the intervals overlap, which leaves it undecided.",
        ),
        (
            _verdict(first="far"),
            "This is higher than that of B: 0.99 against 0.90; the intervals do not overlap.",
        ),
        (
            _verdict(first="alone"),
            "This, against that of B: 0.99 against 0.90; "
            "one of them has no interval, so nothing is decided.",
        ),
        (
            _verdict(first="undefined"),
            "This cannot be compared with that of B: one of them is undefined.",
        ),
        (
            _verdict("win"),
            "This is higher than that of B: 0.97 against 0.90; "
            "difference by person on the same items 0.07 [0.01, 0.10], apart from 0.",
        ),
        (
            _verdict("loss"),
            "This is lower than that of B: 0.97 against 0.90; "
            "difference by person on the same items -0.07 [-0.10, -0.01], apart from 0.",
        ),
        (
            _verdict("open"),
            "This, against that of B: 0.97 against 0.90; "
            "difference by person on the same items 0.07 [-0.01, 0.10], which leaves it undecided.",
        ),
        (
            _verdict("alone"),
            "This, against that of B: 0.97 against 0.90; "
            "difference by person on the same items 0.07 without an interval, "
            "so nothing is decided.",
        ),
        ('{{ level("toy", "a") }}', "90 %"),
        (
            '{{ seeds_above("toy", "a", {}, "chance") }}',
            "1 of 3 training seeds lie above chance (0.10)",
        ),
        ('{{ seeds_above("toy", "b", {}, "chance") }}', "not yet recorded"),
        (
            '{{ parameters("toy") }}',
            "| key | default | meaning |\n| --- | --- | --- |\n"
            "| `toy.source` | `x` | where from |\n| `toy.n` | `3` | how many |",
        ),
    ],
)  # fmt: skip
def test_helpers(site: Path, template: str, text: str) -> None:
    assert render(site, template) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ('{{ value("toy", "a", "nothing") }}', "summary has no nothing"),
        (_verdict("nothing"), "leakage has no nothing"),
        ('{{ level("toy", "b") }}', "params.yaml has no toy.report.level"),
        ("{{ nothing }}", r"page\.md\.j2: 'nothing' is undefined"),
    ],
)
def test_a_template_cannot_name_what_is_not_there(site: Path, template: str, message: str) -> None:
    with pytest.raises(docs.DocsError, match=message):
        render(site, template)


def test_every_key_needs_a_meaning(site: Path) -> None:
    (site / "params.yaml").write_text("toy: {source: x, n: 3, new: 1}\n")
    with pytest.raises(
        docs.DocsError, match=r"toy\.new: explained and present keys must be the same"
    ):
        render(site, '{{ parameters("toy") }}')


def test_check_names_changed_pages(site: Path) -> None:
    render(site, "text\n")
    assert docs.check(site) == ["docs/page.md"]
    (site / "docs" / "page.md").write_text("text\n")
    assert docs.check(site) == []
