"""What the listening page of `digits` shows, and that the model really hears it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from sonolens.data.synth import formant_words as synth
from sonolens.dsp.spectrogram import LogMel
from sonolens.explain.contract import CellKey, Items
from sonolens.intervene.versions import KINDS
from sonolens.models import checkpoint
from sonolens.params import Common, Runtime, StageParams
from sonolens.report.listening import page
from sonolens.store import ArrayStore, write_store
from sonolens.studies.digits import listening
from sonolens.studies.digits.params import Params

ROOT = Path(__file__).parents[2]
KEY = CellKey("audio-64", "person", 0, 0)
WORDS = ("ia", "ia", "au")
IDS = ("x/ia_0", "x/ia_1", "x/au_0")


@dataclass(frozen=True)
class Frozen:
    """An adapter with the frozen checkpoint and three utterances."""

    n_items: int = 3

    @property
    def mel(self) -> LogMel:
        return LogMel(**self.description["front_end"])

    @property
    def description(self) -> dict:
        return checkpoint.load(ROOT / "tests/resources/digits_frozen.safetensors")[1]

    @property
    def data(self):
        manifest = pd.DataFrame(
            {"item_id": IDS, "label": WORDS, "person_id": ["s1", "s2", "s1"], "corpus": "x"}
        ).set_index("item_id", drop=False)
        classes = tuple(self.description["classes"])
        return SimpleNamespace(
            items=lambda cell: SimpleNamespace(manifest=manifest, classes=classes)
        )

    def load(self, key):
        return checkpoint.load(ROOT / "tests/resources/digits_frozen.safetensors")[0]

    def items(self, key, part):
        assert part == "test"
        return Items(IDS, ("s1", "s2", "s1"), (0, 0, 1))

    def window(self, key, item_id):
        row = IDS.index(item_id)
        return synth.render(synth.utterance(WORDS[row], synth.speaker(row, 5), 0, (35.0, 55.0), 5))

    def inputs(self, key, items):
        return self.mel(torch.from_numpy(np.stack([self.window(key, name) for name in items.ids])))

    def truth_masks(self, key, items):
        return {}

    def axes(self, key):
        return self.mel.axes()


def params(**report) -> StageParams[Params]:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["digits"]["report"] |= report
    return StageParams(Params(**values["digits"]), Common(seed=0), Runtime(**values["runtime"]))


def store_of(folder: Path, methods, cells=(KEY.cell,)) -> ArrayStore:
    """Maps that mark each clip's louder half."""
    adapter = Frozen()
    maps = adapter.inputs(KEY, adapter.items(KEY, "test"))
    maps = maps - maps.flatten(1).median(1).values[:, None, None, None]
    with write_store(folder, adapter.axes(KEY)) as writer:
        for cell in cells:
            for method, baseline in methods:
                for item_id, values in zip(IDS, maps.numpy(), strict=True):
                    row = KEY.as_row() | {"cell": cell, "method": method, "baseline": baseline}
                    writer.append(values[None], [row | {"item_id": item_id}])
    return ArrayStore(folder)


def test_clips_are_those_of_the_pictures_and_the_model_hears_them(tmp_path):
    store = store_of(tmp_path, [("random", "none"), ("integrated_gradients", "silence")])
    maps = listening.audible(params(), store)
    assert (maps.method, maps.baseline, maps.key) == ("integrated_gradients", "silence", KEY)
    own = {"metric": "pointing_game", "item_id": IDS[2]} | KEY.as_row()
    scores = pd.DataFrame(
        [
            own | {"method": "integrated_gradients", "baseline": "silence", "score": 0.5},
            own | {"method": "random", "baseline": "none", "score": 1.0},
        ]
    )
    adapter, chosen = Frozen(), params(n_examples=2)
    clips = listening.clips(chosen, adapter, store, maps, scores)
    assert [clip.facts["Item"] for clip in clips] == [IDS[0], IDS[2]]  # one per class
    assert [clip.scores for clip in clips] == [{}, {"pointing_game": 0.5}]
    for clip, row in zip(clips, (0, 2), strict=True):
        heard = {version.kind: version for version in clip.versions}
        assert tuple(heard) == KINDS
        with torch.no_grad():
            logits = adapter.load(KEY)(adapter.inputs(KEY, adapter.items(KEY, "test"))[[row]])
        expected = torch.softmax(logits.double(), 1)[0].numpy()
        assert clip.explained == expected.argmax()  # the answer, right or wrong
        np.testing.assert_allclose(heard["original"].probabilities, expected, atol=1e-6)
        assert 0 < heard["kept"].share < 1
    about = listening.about(adapter, maps, len(clips))
    assert "2 of 3 explained recordings of the corpus x" in about[0]
    assert page(clips, "t", about).count("<audio") == 2 * len(KINDS)
    again = listening.clips(chosen, adapter, store, maps, scores)
    for one, other in zip(clips, again, strict=True):
        for a, b in zip(one.versions, other.versions, strict=True):
            np.testing.assert_array_equal(a.waveform, b.waveform)


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        ([("random", "none"), ("saliency", "none")], ("saliency", "none")),
        ([("energy", "silence"), ("energy", "legacy_zero")], ("energy", "silence")),
    ],
)
def test_controls_are_heard_only_where_there_is_nothing_else(tmp_path, methods, expected):
    maps = listening.audible(params(), store_of(tmp_path, methods))
    assert (maps.method, maps.baseline) == expected
    assert list(maps.rows["item_id"]) == list(IDS)


def test_pictures_are_not_heard(tmp_path):
    methods = [("saliency", "none")]
    assert listening.audible(params(), store_of(tmp_path / "a", methods, ["image-32"])) is None
    both = store_of(tmp_path / "b", methods, ["image-32", KEY.cell])
    assert listening.audible(params(), both).key == KEY
