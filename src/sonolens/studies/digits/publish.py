"""The study's files to one complete row of the experiment tracker."""

from __future__ import annotations

from sonolens import track
from sonolens.params import StageParams, load_yaml
from sonolens.pipeline import StageFiles
from sonolens.store import write_json
from sonolens.studies.digits.params import Params


def run(params: StageParams[Params], files: StageFiles, record: track.Record) -> None:
    """Publish the study's files as one row."""
    values = load_yaml(files.root / "params.yaml")
    write_json(
        files.out("metrics/digits/published.json"),
        track.publish(files.root, files.spec, values, study="digits"),
    )
