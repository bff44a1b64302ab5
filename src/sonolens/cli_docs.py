"""`sonolens record`, `sonolens figures`, `sonolens docs …`: results and pages that git keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Pages made of templates and recorded results.")


def record(
    name: Annotated[
        str, typer.Argument(help="name of the record, e.g. embedded; the docs refer to it")
    ],
    study: Annotated[str, typer.Option(help="whose results")],
    command: Annotated[str, typer.Option(help="what was run, as a reader would type it")],
) -> None:
    """Copy a study's results, with command, revision, data and kind of machine, to docs/results."""
    from sonolens.report.record import record as write_record

    path = write_record(Path.cwd(), study, name, command)
    typer.echo(
        f"{path.relative_to(Path.cwd())}: recorded; `sonolens docs render` puts it into the docs"
    )


def figures(
    output_dir: Annotated[
        Path | None,
        typer.Option(help="write pictures for print, PDF and PNG of 300 dpi, below this folder"),
    ] = None,
    study: Annotated[
        list[str] | None, typer.Option(help="whose pictures for print; by default all studies'")
    ] = None,
) -> None:
    """Copy the pictures of the docs, made small, from plots to docs/images.

    With --output-dir, draw every picture of the report stages again, for print.
    """
    if output_dir is not None:
        _print_figures(output_dir, study)
        return
    if study:
        raise typer.BadParameter("--study chooses pictures for print: give --output-dir, too")
    from sonolens.report import page_images

    sizes = page_images.copy_all(Path.cwd())
    for path, size in sizes.items():
        typer.echo(f"{path}: {size / 1000:.0f} kB")
    typer.echo(f"{sum(sizes.values()) / 1000:.0f} of {page_images.MAX_BYTES / 1000:.0f} kB")


def _print_figures(folder: Path, chosen: list[str] | None) -> None:
    from sonolens import stages
    from sonolens.pipeline import load_pipeline

    root = Path.cwd()
    names = load_pipeline(root)
    for study in chosen or [name for name in stages.studies() if f"{name}-report" in names]:
        for path in stages.redraw(root, study, folder):
            typer.echo(str(path))


@app.command()
def render() -> None:
    """Write README.md and docs/*.md from docs/templates and docs/results."""
    from sonolens.report import docs
    from sonolens.store import whole

    pages = docs.render(Path.cwd())
    for path, text in pages.items():
        with whole(Path.cwd() / path, "w") as stream:
            stream.write(text)
    typer.echo(f"written: {', '.join(pages)}")


@app.command()
def check() -> None:
    """List pages that differ from what would be rendered; the exit status is 1 when any does."""
    from sonolens.report import docs

    changed = docs.check(Path.cwd())
    for path in changed:
        typer.echo(
            f"{path}: differs from its template or from the records; run `sonolens docs render`"
        )
    if changed:
        raise typer.Exit(1)
    typer.echo("docs agree with templates and records")
