"""`sonolens digits …`: one's own recordings with a trained checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, help="Spoken digits and words: explain your own recordings."
)


@app.command()
def explain(
    files: Annotated[list[Path], typer.Argument(help="recordings, or folders of recordings")],
    output_dir: Annotated[Path, typer.Option(help="where maps, scores and sounds go")] = Path(
        "explanations"
    ),
    checkpoint: Annotated[
        Path | None, typer.Option(help="default: the model of the first fold")
    ] = None,
    method: Annotated[list[str], typer.Option(help="repeat for several")] = [  # noqa: B006
        "integrated_gradients"
    ],
    baseline: Annotated[str, typer.Option(help="of the methods that take one")] = "silence",
    seed: Annotated[int, typer.Option(help="root of all draws")] = 0,
) -> None:
    """Explain recordings: map and scores, and the sound that lies under the map and beside it.

    Writes FILE.png, FILE.npz, FILE_METHOD_kept.wav, FILE_METHOD_removed.wav, and explanations.csv
    for all files. Of a recording longer than the model's window the loudest stretch is explained.
    """
    import pandas as pd

    from sonolens.data.audio import BadRecording
    from sonolens.data.own_files import named_recordings
    from sonolens.explain import registry
    from sonolens.explain.contract import ExplainError
    from sonolens.store import write_csv
    from sonolens.studies.digits import own_files

    for name in method:
        registry.info(name)  # before the work begins
    paths, bad = named_recordings(files)
    output_dir.mkdir(parents=True, exist_ok=True)
    request = own_files.Request(
        checkpoint or own_files.default_checkpoint(Path.cwd()),
        output_dir,
        tuple(method),
        baseline,
        seed,
    )
    session = own_files.OwnFiles(request)
    rows = []
    for path, name in paths:
        try:
            rows += session.explain(path, name)
        except BadRecording as error:
            bad.append(str(error))
            continue
        except ExplainError as error:
            bad.append(f"{path}: {error}")
            continue
        row = rows[-1]
        typer.echo(
            f"{path}: {row['predicted']} (p = {row['p']:.2f}); "
            f"under the map p = {row['p_kept']:.2f}, without it p = {row['p_removed']:.2f}"
        )
    if rows:
        write_csv(output_dir / "explanations.csv", pd.DataFrame(rows))
        n_explained = len({row["file"] for row in rows})
        typer.echo(f"{n_explained} files explained; see {output_dir / 'explanations.csv'}")
    for reason in bad:
        typer.secho(f"not explained: {reason}", fg="red", err=True)
    if bad or not rows:
        raise typer.Exit(1)


@app.command()
def export(
    output_dir: Annotated[Path, typer.Option(help="where `checkpoints` and `results` go")] = Path(
        "export"
    ),
    n_maps: Annotated[int, typer.Option(min=0, help="items per cell whose maps are written")] = 5,
) -> None:
    """Write the results of the pipeline under the file names of audio-xai.

    Makes checkpoints/DATASET_ARCHITECTURE_RESOLUTION.safetensors, results/metrics/*.csv and
    results/visualizations/DATASET_METHOD_RESOLUTION_SAMPLE.npy and .png.
    """
    from sonolens.params import load_yaml, validate
    from sonolens.studies.digits import export as exported
    from sonolens.studies.digits.params import Params

    root, name = Path.cwd(), "params.yaml"
    study = validate(load_yaml(root / name).get("digits", {}), Params, f"{name}: digits")
    written = exported.run(root, study, output_dir, n_maps)
    typer.echo(f"{len(written)} files written to {output_dir}")
