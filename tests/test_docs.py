"""The docs say what is there: pages as rendered, links, commands and files that exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from sonolens import cli
from sonolens import params as base
from sonolens.pipeline import load_pipeline
from sonolens.report import docs, page_images
from sonolens.report.record import PRIVATE_COLUMNS, RESULTS

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
    """Targets, verbs, stages and keys of `command` exist; capital words stand for something."""
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        asked = [
            word
            for word in words[1:]
            if "=" not in word and not word.startswith("-") and word != "|"
        ]
        assert set(asked) <= set(targets), command
    elif words[0] == "sonolens":
        current: click.Command = typer.main.get_command(cli.app)
        for word in words[1:]:
            if not isinstance(current, click.Group) or word.isupper():
                break
            assert word in current.commands, f"{command}: no `{word}`"
            current = current.commands[word]
    else:
        flat = base.flatten(base.load_yaml(ROOT / "params.yaml"))
        for word in words[2:]:
            key = word.split("=")[0]
            if "=" in word and "." in key:
                assert key in flat, f"{command}: params.yaml has no {key}"
            elif re.fullmatch(r"[a-z_]+-[a-z_]+", word):
                assert word in load_pipeline(ROOT), f"{command}: dvc.yaml has no {word}"


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
    columns = ("method", "baseline", "metric", "value", "ci_low", "ci_high")
    return dict(zip(columns, values, strict=True))


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
        "leakage": _interval(0.9, 0.8, 0.95),
        "summary": _interval(0.97, 0.934, 0.99) | {"n_person": 12, "n_item": 1200},
        "tables": {
            "scores": [
                _score("saliency", None, "sparseness", 0.5, 0.4, 0.6),
                _score("ig", "silence", "mprt", None, None, None),
            ]
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
            "| `saliency` | – | 0.50 [0.40, 0.60] | – |\n| `ig` | silence | – | – |",
        ),
        (
            '{{ verdict("toy", "a", ["summary", "accuracy_person"], '
            '["leakage", "accuracy_person"], "This", "of B") }}',
            "This is 0.07 higher than that of B; "
            "the intervals overlap, so this is no clear difference.",
        ),
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
