"""`sonolens data …`: bring recordings in, and see what is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from sonolens.data import acquire

app = typer.Typer(no_args_is_help=True, help="Bring recordings in, and see what is there.")

SourceName = Annotated[
    str, typer.Argument(help="name of the source, e.g. fsdd; `sonolens data list` shows them")
]
Replace = Annotated[
    bool, typer.Option("--replace", help="put them in the place of those that are there")
]


@app.command()
def add(
    source: SourceName,
    paths: Annotated[
        list[Path], typer.Argument(help="a folder, or several that get a subfolder each")
    ],
    replace: Replace = False,
) -> None:
    """Copy recordings from this machine into the project and track them with DVC."""
    from sonolens.data import acquire  # pandas would slow down `--help`

    with _failing_politely(), _bar() as progress:
        added = acquire.add(Path.cwd(), source, paths, progress, replace=replace)
    _tell(added)


@app.command()
def fetch(
    source: SourceName,
    url: Annotated[str | None, typer.Option(help="another address than the published one")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    replace: Replace = False,
) -> None:
    """Download a published corpus; a broken download goes on where it stopped."""
    from sonolens.data import acquire  # pandas would slow down `--help`

    def confirm(offer: acquire.Offer) -> bool:
        size = "size unknown" if offer.size_bytes is None else f"{offer.size_bytes / 1e6:.0f} MB"
        Console().print(
            f"{offer.title}\n{offer.url}\n{size}, licence {offer.licence}", highlight=False
        )
        return yes or typer.confirm("Download it?")

    with _failing_politely(), _bar() as progress:
        added = acquire.fetch(
            Path.cwd(), source, url=url, confirm=confirm, progress=progress, replace=replace
        )
    if added is None:
        Console().print("Nothing was downloaded.")
        raise typer.Exit(1)
    _tell(added)


@app.command("list")
def list_() -> None:
    """Known corpora and own recordings: licence, whether they are here, tasks."""
    from sonolens.data import acquire  # pandas would slow down `--help`

    table = Table("source", "what", "licence", "state", "files", "tasks")
    for row in acquire.list_sources(Path.cwd()):
        files = str(row.n_files) if row.n_files else ""
        table.add_row(row.name, row.title, row.licence, row.state, files, ", ".join(row.tasks))
    Console().print(table)


@app.command()
def skipped(
    study: Annotated[str, typer.Argument(help="whose recordings, e.g. digits")],
) -> None:
    """Recordings that the last `prepare` left out under `on_bad_file: skip`, with reasons."""
    from sonolens.data import manifest
    from sonolens.store import read_parquet

    whole = read_parquet(Path("data", study, "prepare", "manifest.parquet"))
    table = manifest.skipped(whole)
    for path, reason in zip(table["path"], table["reason"], strict=True):
        typer.echo(f"{path}: {reason}")
    typer.echo(f"{len(table)} of {len(whole)} recordings left out")


@app.command()
def verify(
    remove: Annotated[bool, typer.Option("--remove", help="delete the damaged ones")] = False,
) -> None:
    """Read DVC's cache again and list damaged objects, which DVC itself takes for intact."""
    from sonolens.data import verify as cache

    with _bar() as progress:
        n_objects, found = cache.damaged(Path.cwd(), progress)
    for item in found:
        typer.echo(f"{item.path}: damaged in the cache, {item.stored} ({item.n_bytes} bytes)")
    typer.echo(f"{n_objects} objects read, {len(found)} damaged")
    if not found:
        return
    if not remove:
        typer.echo("`sonolens data verify --remove` deletes them, so that they can be made anew.")
        raise typer.Exit(1)
    cache.remove(found)
    typer.echo(
        "Deleted. What stages made: `dvc repro` makes it anew. What was brought in: `dvc fetch`, "
        "where there is a remote, or `sonolens data add NAME PATH --replace`."
    )


def _tell(added: acquire.Added) -> None:
    console = Console()
    console.print(
        f"{added.source}: {added.n_files} files, {added.n_bytes / 1e6:.1f} MB in {added.folder}",
        highlight=False,
    )
    if added.skipped:
        names = ", ".join(added.skipped[:3])
        console.print(
            f"Left out: {len(added.skipped)} hidden files or links, e.g. {names}", highlight=False
        )
    if added.remark:
        console.print(
            f"As it lies, no classifier can be trained on it: {added.remark}",
            style="yellow", highlight=False, markup=False,
        )  # fmt: skip
    if added.tracked:
        console.print(f"Staged for commit: {', '.join(added.tracked)}", highlight=False)


@contextmanager
def _failing_politely() -> Iterator[None]:
    from sonolens.data import acquire

    try:
        yield
    except acquire.AcquireError as error:
        Console(stderr=True).print(str(error), style="red", highlight=False, markup=False)
        raise typer.Exit(1) from error


@contextmanager
def _bar() -> Iterator[acquire.Progress]:
    """A bar that appears with the first byte, so that questions before it stay readable."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    tasks: dict[str, TaskID] = {}

    def progress(what: str, done: int, total: int | None) -> None:
        if what not in tasks:
            bar.start()
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done, total=total)

    try:
        yield progress
    finally:
        bar.stop()
