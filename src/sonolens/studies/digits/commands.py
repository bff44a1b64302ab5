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

    Writes FILE.png, FILE.npz, FILE_METHOD_kept.wav, FILE_METHOD_removed.wav, and for all files
    explanations.csv and listening.html, a page to listen to them beside controls. Of a recording
    longer than the model's window the loudest stretch is explained.
    """
    from sonolens import explain_files

    classifier = explain_files.Classifier.load(checkpoint or default_checkpoint(Path.cwd()))
    request = explain_files.Request(output_dir, tuple(method), baseline, seed)
    bad = explain_files.run(classifier, request, files, typer.echo)
    for reason in bad:
        typer.secho(f"not explained: {reason}", fg="red", err=True)
    if bad:
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


def default_checkpoint(root: Path) -> Path:
    """The trained model of the first fold, for sounds.

    Raises NoCheckpoint with the command that makes one.
    """
    from sonolens.explain_files import NoCheckpoint

    found = sorted(
        (root / "models/digits/train").glob("audio-*_person_fold0_*_trained.safetensors")
    )
    if not found:
        raise NoCheckpoint(
            "models/digits/train: no checkpoint; run `dvc repro digits-train`, or give --checkpoint"
        )
    return found[0]
