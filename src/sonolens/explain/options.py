"""Names and options of registry rows, methods and metrics alike: look up, fill in, refuse."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar


class Registered(Protocol):
    """Row of a registry."""

    @property
    def name(self) -> str:
        """What users call it."""
        ...

    @property
    def options(self) -> dict[str, Any]:
        """Every option a user may set, with its default."""
        ...


Row = TypeVar("Row", bound=Registered)


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Message for a name that is not among `known`; it proposes the nearest."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"need one of {', '.join(known)}"
    return f"{what} {name!r}: unknown; {hint}"


def look_up(rows: Mapping[str, Row], what: str, name: str, error: type[Exception]) -> Row:
    """Row of `name`. Raises `error` that proposes the nearest name."""
    if name not in rows:
        raise error(unknown(what, name, rows))
    return rows[name]


def all_options(row: Registered, given: dict[str, Any]) -> dict[str, Any]:
    """Every option of a row: its defaults, overridden by those given, by those for it alone.

    Parameters
    ----------
    row
        Registry row.
    given
        Options by name, and of one row as ``{row's name: {option: value}}``; others are left out.
    """
    shared = {name: value for name, value in given.items() if name in row.options}
    own: dict[str, Any] = given.get(row.name, {})
    return row.options | shared | own


def check_options(
    given: dict[str, Any],
    rows: Mapping[str, Registered],
    stage: str,
    error: type[Exception],
    more: Iterable[str] = (),
) -> None:
    """Refuse options that nothing takes.

    Parameters
    ----------
    given
        See `all_options`.
    rows
        Registry; options of rows that are not asked for are fine.
    stage
        Name of the stage in the message.
    error
        Raised with a message that proposes the nearest name.
    more
        Options that are no row's.
    """
    shared = set(more).union(*(row.options for row in rows.values()))
    for name, value in given.items():
        if name in rows:
            known = rows[name].options
            wrong = [inner for inner in value if inner not in known]
            if wrong:
                raise error(unknown(f"{name} option", wrong[0], sorted(known)))
        elif name not in shared:
            raise error(unknown(f"{stage} option", name, sorted(shared | set(rows))))
