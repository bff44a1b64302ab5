"""Docs from templates and recorded results: no figure in them is typed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from sonolens.params import flatten, load_yaml
from sonolens.report.markdown import EMPTY, as_float, interval, markdown_table
from sonolens.report.record import RESULTS
from sonolens.store import read_json

TEMPLATES = "docs/templates"
MEANINGS = "docs/templates/params.yaml"
SOURCE_TABLES = "docs/templates/sources.yaml"
ABSENT = "not yet recorded"


class DocsError(ValueError):
    """A template asks for something that is not there; the message names it."""


def render(root: Path) -> dict[str, str]:
    """Text of every rendered page by path relative to `root`: README.md and docs/<name>.md."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(root / TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    helpers = Helpers(root)
    environment.globals.update(
        {
            name: getattr(helpers, name)
            for name in dir(helpers)
            if not name.startswith("_") and name != "root"
        }
    )
    pages = {}
    for path in sorted((root / TEMPLATES).glob("*.md.j2")):
        name = path.name.removesuffix(".j2")
        try:
            text = environment.get_template(path.name).render()
        except jinja2.TemplateError as error:
            raise DocsError(f"{TEMPLATES}/{path.name}: {error}") from error
        pages[name if name == "README.md" else f"docs/{name}"] = text
    return pages


def check(root: Path) -> list[str]:
    """Pages whose file differs from what would be rendered now."""
    return [path for path, text in render(root).items() if not _equals(root / path, text)]


def _equals(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


class Helpers:
    """What templates call. A record that is not there yet reads `not yet recorded`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._params = load_yaml(root / "params.yaml")
        self._records: dict[tuple[str, str], dict[str, Any]] = {
            (path.parent.name, path.stem): read_json(path)
            for path in sorted((root / RESULTS).glob("*/*.json"))
        }

    def recorded(self, study: str, name: str) -> dict[str, Any] | None:
        """A record, or None."""
        return self._records.get((study, name))

    def value(
        self, study: str, name: str, metric: str, digits: int = 2, *, part: str = "summary"
    ) -> str:
        """`0.97 [0.93, 0.99]` of a metric of `summary` or `leakage`."""
        record = self.recorded(study, name)
        if record is None:
            return ABSENT
        values = record[part] or {}
        if metric not in values:
            raise DocsError(f"{RESULTS}/{study}/{name}.json: {part} has no {metric}")
        return interval(
            values[metric], values.get(f"{metric}_ci_low"), values.get(f"{metric}_ci_high"), digits
        )

    def value_n(
        self,
        study: str,
        name: str,
        metric: str,
        unit: str = "persons",
        digits: int = 2,
        *,
        part: str = "summary",
    ) -> str:
        """`0.97 [0.93, 0.99], n = 12 persons`."""
        text = self.value(study, name, metric, digits, part=part)
        return text if text == ABSENT else f"{text}, n = {self._count(study, name, part)} {unit}"

    def count(self, study: str, name: str, key: str, *, part: str = "summary") -> str:
        """A whole number with a comma every three digits."""
        record = self.recorded(study, name)
        if record is None:
            return ABSENT
        if key not in (record[part] or {}):
            raise DocsError(f"{RESULTS}/{study}/{name}.json: {part} has no {key}")
        return f"{record[part][key]:,.0f}"

    def _count(self, study: str, name: str, part: str) -> str:
        return self.count(study, name, "n_person", part=part)

    def table(
        self,
        study: str,
        name: str,
        table: str,
        columns: dict[str, str],
        where: dict[str, Any] | None = None,
        digits: int = 2,
    ) -> str:
        """Markdown table of a recorded table.

        `columns` maps a column to its heading; `value~` is `value` with the interval beside it.
        """
        record = self.recorded(study, name)
        if record is None:
            return f"*{ABSENT}*"
        rows = [row for row in self._rows(record, table) if _matches(row, where or {})]
        if not rows:
            return f"*no rows: {where}*"
        return markdown_table(
            list(columns.values()),
            [[_cell(row, column, digits) for column in columns] for row in rows],
        )

    def score_table(
        self,
        study: str,
        name: str,
        metrics: Sequence[str],
        where: dict[str, Any] | None = None,
        digits: int = 2,
    ) -> str:
        """Markdown table of the XAI scores: a row per method and baseline, a column per metric.

        The share of undefined scores stands beside a mean where there are any.
        """
        record = self.recorded(study, name)
        if record is None:
            return f"*{ABSENT}*"
        rows = [row for row in self._rows(record, "scores") if _matches(row, where or {})]
        found = {row["metric"] for row in rows}
        shown = [metric for metric in metrics if metric in found]
        cells: dict[tuple[str, str], dict[str, str]] = {}
        for row in rows:
            key = (
                row["method"],
                row["baseline"] if row["baseline"] not in (None, "none", "") else EMPTY,
            )
            text = interval(row["value"], row["ci_low"], row["ci_high"], digits) + _nan_share(row)
            cells.setdefault(key, {})[row["metric"]] = text
        body = [[f"`{method}`", baseline, *(values.get(metric, EMPTY) for metric in shown)]
                for (method, baseline), values in cells.items()]  # fmt: skip
        return markdown_table(
            ["method", "baseline", *(metric.replace("_", " ") for metric in shown)], body
        )

    def verdict(
        self,
        study: str,
        name: str,
        first: tuple[str, str],
        second: tuple[str, str],
        what: str,
        than: str,
        digits: int = 2,
        *,
        difference: tuple[str, str] | None = None,
    ) -> str:
        """One sentence on which of two metrics, each (`summary` or `leakage`, name), is larger.

        With `difference`, the name of their paired difference, its interval decides; without, the
        two intervals do, which is stricter.
        """
        record = self.recorded(study, name)
        if record is None:
            return f"{what}, against that {than}: {ABSENT}."
        (a, a_low, a_high), (b, b_low, b_high) = (
            self._bounds(record, *pair) for pair in (first, second)
        )
        if math.isnan(a) or math.isnan(b):
            return f"{what} cannot be compared with that {than}: one of them is undefined."
        both = f"{a:.{digits}f} against {b:.{digits}f}"
        if difference is None:
            low, high = a_low - b_high, a_high - b_low
            apart = "the intervals do not overlap"
            open_ = "the intervals overlap, which leaves it undecided"
            alone = "one of them has no interval, so nothing is decided"
        else:
            gain, low, high = self._bounds(record, *difference)
            if math.isnan(gain):
                return f"{what}, against that {than}: {both}; their difference is undefined."
            shown = f"difference by person on the same items {interval(gain, low, high, digits)}"
            apart, open_ = f"{shown}, apart from 0", f"{shown}, which leaves it undecided"
            alone = f"{shown} without an interval, so nothing is decided"
        if math.isnan(low) or math.isnan(high):
            return f"{what}, against that {than}: {both}; {alone}."
        if low > 0:
            return f"{what} is higher than that {than}: {both}; {apart}."
        if high < 0:
            return f"{what} is lower than that {than}: {both}; {apart}."
        return f"{what}, against that {than}: {both}; {open_}."

    def seeds_above(
        self, study: str, name: str, where: dict[str, Any], chance: str, table: str = "seeds"
    ) -> str:
        """`2 of 3 training seeds lie above chance (0.12)`; `chance` is a name in summary."""
        record = self.recorded(study, name)
        if record is None:
            return ABSENT
        level, _, _ = self._bounds(record, "summary", chance)
        values = [row["value"] for row in self._rows(record, table) if _matches(row, where)]
        if not values or math.isnan(level):
            return f"no training seed can be compared with chance: {where}"
        n_above = sum(value is not None and value > level for value in values)
        return f"{n_above} of {len(values)} training seeds lie above chance ({level:.2f})"

    def level(self, study: str, name: str) -> str:
        """Coverage of a record's intervals, `95 %`; of params.yaml while there is no record."""
        record = self.recorded(study, name) or {}
        key = f"{study}.report.level"
        value = record.get("params", {}).get(key)
        if value is None:
            value = flatten({study: self._params[study]}).get(key)
        if value is None:
            raise DocsError(f"params.yaml has no {key}")
        return f"{100 * value:g} %"

    def _bounds(self, record: dict[str, Any], part: str, metric: str) -> tuple[float, float, float]:
        """Value and interval, NaN where the record says null."""
        values = record[part] or {}
        if metric not in values:
            raise DocsError(
                f"{RESULTS}/{record['study']}/{record['name']}.json: {part} has no {metric}"
            )
        value, low, high = (
            as_float(values.get(f"{metric}{end}")) for end in ("", "_ci_low", "_ci_high")
        )
        return value, low, high

    def _rows(self, record: dict[str, Any], table: str) -> list[dict[str, Any]]:
        tables: dict[str, list[dict[str, Any]]] = record["tables"]
        if table not in tables:
            raise DocsError(
                f"{RESULTS}/{record['study']}/{record['name']}.json: no table {table}; "
                f"has {', '.join(tables)}"
            )
        return tables[table]

    def minutes(self, study: str, name: str) -> str:
        """`2.4 minutes` of all stages of a record, or that it is not known."""
        record = self.recorded(study, name)
        if record is None:
            return ABSENT
        costs = record.get("cost") or {}
        if not costs or None in costs.values():
            return "no time recorded"
        total = sum(one["duration_s"] for one in costs.values()) / 60
        return f"{total:.{1 if total < 10 else 0}f} minutes"

    def cost_table(self, study: str, name: str) -> str:
        """Markdown table: seconds and memory of every stage."""
        record = self.recorded(study, name)
        if record is None:
            return ABSENT
        costs = record.get("cost") or {}
        order = [stage for stage in load_yaml(self.root / "dvc.yaml")["stages"] if stage in costs]
        rows = [
            [f"`{stage}`", EMPTY, EMPTY]
            if costs[stage] is None
            else [
                f"`{stage}`",
                f"{costs[stage]['duration_s']:.0f}",
                f"{costs[stage]['peak_memory_mb'] or 0:.0f}",
            ]
            for stage in order
        ]
        return markdown_table(["stage", "seconds", "largest process (MB)"], rows)

    def provenance(self, study: str, name: str) -> str:
        """One line: command, revision, data, kind of machine."""
        record = self.recorded(study, name)
        if record is None:
            return f"`{name}`: {ABSENT}."
        machine, versions = record["machine"], record["versions"]
        where = f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}"
        if machine.get("gpu"):
            where += f", {machine['gpu']}"
        revision = (record["revision"] or "no commit")[:10] + (
            " with changed code" if record["dirty"] else ""
        )
        raw = ", ".join(
            f"`{path}` {md5}"
            for path, md5 in record["data"].items()
            if path.startswith("data/raw/")
        )
        return (
            f"`{name}`: `{record['command']}`; {_sources(record)}; "
            f"revision {revision}; data {raw or 'none'}; torch {versions['torch']}, "
            f"Python {versions['python']}; {where}. "
            f"File: `{RESULTS}/{study}/{name}.json`."
        )

    def parameters(self, study: str) -> str:
        """Markdown table of every key of a section of params.yaml: default and meaning."""
        meanings = {key: str(text) for key, text in load_yaml(self.root / MEANINGS)[study].items()}
        values = flatten({study: self._params[study]})
        unlike = sorted(set(values) ^ set(meanings))
        if unlike:
            raise DocsError(
                f"{MEANINGS}: {', '.join(unlike)}: explained and present keys must be the same"
            )
        rows = [[f"`{key}`", f"`{_plain(value)}`", meanings[key]] for key, value in values.items()]
        return markdown_table(["key", "default", "meaning"], rows)

    def source_rows(self, study: str) -> str:
        """Markdown table: what a source project had, and where it is here."""
        rows = [
            [
                row["theirs"],
                row.get("stage", EMPTY),
                f"`{row['command']}`",
                ", ".join(f"`{path}`" for path in row["files"]),
            ]
            for row in source_table(self.root, study)
        ]
        return markdown_table(["there", "our stage", "our command", "our file"], rows)

    def image(self, image: str, text: str, folder: str = "docs/images") -> str:
        """Markdown picture, `folder` as seen from the page; a note while there is none."""
        return (
            f"![{text}]({folder}/{image})"
            if (self.root / "docs" / "images" / image).is_file()
            else f"*{text}: `make figures` copies it here.*"
        )


def source_table(root: Path, study: str) -> list[dict[str, Any]]:
    """Rows of docs/templates/sources.yaml for a study."""
    rows: list[dict[str, Any]] = load_yaml(root / SOURCE_TABLES)[study]
    return rows


def _nan_share(row: dict[str, Any]) -> str:
    n_nan = row.get("n_nan") or 0
    if not n_nan:
        return ""
    share = 100 * n_nan / (row["n_score"] + n_nan)
    return f" ({'< 1' if share < 0.5 else f'{share:.0f}'} % NaN)"


def _matches(row: dict[str, Any], where: dict[str, Any]) -> bool:
    def fits(column: str, value: Any) -> bool:
        return row[column] in value if isinstance(value, tuple) else row[column] == value

    # Records that were made before a column was there have one value of it.
    return all(fits(column, value) for column, value in where.items() if column in row)


def _cell(row: dict[str, Any], column: str, digits: int) -> str:
    if column.endswith("~"):
        name = column[:-1]
        low, high = (
            row[f"{name}_{end}"] if f"{name}_{end}" in row else row[end]
            for end in ("ci_low", "ci_high")
        )
        return interval(row[name], low, high, digits)
    value = row[column]
    if value is None:
        return EMPTY
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _sources(record: dict[str, Any]) -> str:
    """`source `fsdd`, `mnist``: of every modality."""
    names = [
        f"`{value}`"
        for key, value in record["params"].items()
        if key.count(".") == 1 and key.endswith("source")
    ]
    return "source " + ", ".join(names) if names else "what other studies measured"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
