"""`sonolens …`: data, tracking, docs, and each study's commands for one's own files."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sonolens import cli_data, cli_docs, cli_track, errors
from sonolens import params as base
from sonolens.stages import params_model, studies

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Why did the model decide that; can I see it, hear it and trust it?",
)
params_app = typer.Typer(no_args_is_help=True, help="Check params.yaml and print profiles.")
model_app = typer.Typer(no_args_is_help=True, help="Model registry.")

app.add_typer(cli_data.app, name="data")
app.add_typer(cli_track.app, name="track")
app.add_typer(params_app, name="params")
app.add_typer(model_app, name="model")
app.command("ui")(cli_track.ui)
model_app.command("register")(cli_track.model_register)
app.command("record")(cli_docs.record)
app.command("figures")(cli_docs.figures)
app.add_typer(cli_docs.app, name="docs")
for study in studies():
    commands = f"sonolens.studies.{study}.commands"
    if importlib.util.find_spec(commands) is not None:  # a comparison of studies has none
        app.add_typer(importlib.import_module(commands).app, name=study)


@params_app.command("check")
def check() -> None:
    """Check params.yaml of the current folder, and that there are such recordings."""
    checked = base.validate(base.load_yaml(Path("params.yaml")), params_model(), "params.yaml")
    raw = Path("data", "raw")
    known = sorted(path.name for path in raw.glob("*") if path.is_dir())
    for study in studies():
        source = getattr(getattr(checked, study), "source", None)
        if source is not None and source not in known:
            raise base.ParamsError(
                f"params.yaml: {study}.source: found {source!r}, need one of {', '.join(known)}; "
                f"`sonolens data add {source} PATH` brings recordings in under this name"
            )
    typer.echo("params.yaml: every key is known and in range")


@params_app.command("flags")
def flags(
    profile: Annotated[str, typer.Argument(help="a file of the folder profiles, without .yaml")],
    study: Annotated[str | None, typer.Option(help="only this study's keys")] = None,
) -> None:
    """Print a profile as the `-S` list of `dvc exp run`."""
    path = Path("profiles") / f"{profile}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in Path("profiles").glob("*.yaml")))
        raise base.ParamsError(f"{path}: not found; profiles are {known}")
    overrides = base.load_yaml(path)
    merged = _merge(base.load_yaml(Path("params.yaml")), overrides, str(path))
    base.validate(merged, params_model(), str(path))
    for key, value in base.flatten(overrides).items():
        if study is None or key.split(".")[0] == study:
            typer.echo("-S " + shlex.quote(f"{key}={json.dumps(value)}"), nl=False)
            typer.echo(" ", nl=False)
    typer.echo()


def _merge(
    values: dict[str, Any], overrides: dict[str, Any], source: str, prefix: str = ""
) -> dict[str, Any]:
    merged = dict(values)
    for key, value in overrides.items():
        if key not in values:
            raise base.ParamsError(f"{source}: {prefix}{key}: params.yaml has no such key")
        merged[key] = (
            _merge(values[key], value, source, f"{prefix}{key}.")
            if isinstance(value, dict) and isinstance(values[key], dict)
            else value
        )
    return merged


def main() -> None:
    """Console entry: messages of foreseen errors without a traceback, exit status 1."""
    try:
        app()
    except Exception as error:
        message = errors.describe(error)
        if message is None:
            raise
        typer.secho(f"sonolens: {message}", fg="red", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
