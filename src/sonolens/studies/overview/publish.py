"""The comparison's files to one complete row of the experiment tracker."""

from __future__ import annotations

from sonolens import track
from sonolens.params import StageParams, load_yaml
from sonolens.pipeline import StageFiles
from sonolens.store import write_json
from sonolens.studies.overview.params import Params


def run(params: StageParams[Params], files: StageFiles, record: track.Record) -> None:
    """Publish the comparison as one row."""
    values = load_yaml(files.root / "params.yaml")
    write_json(
        files.out("metrics/overview/published.json"),
        track.publish(files.root, files.spec, values, study="overview"),
    )
