"""What integrated gradients for sound must show on a trained net, the frozen one of `digits`."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sonolens.data.synth import formant_words as synth
from sonolens.dsp.regions import mask_from_tracks
from sonolens.dsp.spectrogram import LogMel
from sonolens.explain import baselines, registry, targets
from sonolens.explain.cells import call_options, n_draws
from sonolens.explain.contract import Items, evaluate, seed_array
from sonolens.explain.prepare import prepared
from sonolens.models import checkpoint
from sonolens.score import registry as metrics
from sonolens.score.contract import Context

FROZEN = Path(__file__).parents[1] / "resources/digits_frozen.safetensors"
N_SPEAKERS = 2


class Words:
    """Words of speakers the net has never heard, and scores of methods on them."""

    def __init__(self):
        model, description = checkpoint.load(FROZEN)
        front_end = LogMel(**description["front_end"])
        spoken = [
            synth.utterance(word, synth.speaker(index, 4711), 0, (35.0, 55.0), 4711)
            for index in range(N_SPEAKERS)
            for word in synth.WORDS
        ]
        clips = np.stack([synth.render(what) for what in spoken])
        self.inputs = front_end(torch.from_numpy(clips))
        axes = (front_end.frequencies_hz, front_end.times_s)
        masks = np.stack([mask_from_tracks(synth.cue_tracks(what), *axes) for what in spoken])
        self.axes = front_end.axes()
        self.model = prepared(model, self.inputs[:1])
        self.seeds = seed_array(range(len(spoken)))
        target = targets.predicted(self.model, self.inputs)
        names = tuple(f"{row:02d}" for row in range(len(spoken)))
        self.target = target
        self.chance = float(masks.mean())
        self.context = Context(
            items=Items(names, names, target.class_index),
            inputs=self.inputs,
            target=target,
            predict=lambda edited, rows: evaluate(self.model, edited, target, rows),
            edit=lambda inputs, mask, fill: inputs + mask * (fill - inputs),
            fill=baselines.silence(self.inputs, self.axes)[:, 0].expand_as(self.inputs),
            masks={"cues": torch.from_numpy(masks)[:, None]},
            item_seeds=self.seeds,
            scale=(0.0, 1.0),
        )

    def explain(self, name, kind=None, rows=slice(None), **options):
        info, inputs = registry.info(name), self.inputs[rows]
        baseline = baselines.make(
            kind or info.baselines[0], inputs, self.axes, item_seeds=self.seeds[rows].tolist(),
            n_draws=n_draws(info, {}),
        )  # fmt: skip
        chosen = range(len(self.inputs))[rows]
        return info.load()(
            self.model, inputs, self.target.select(chosen), baseline=baseline,
            item_seeds=self.seeds[rows],
            **call_options(info, info.options | options, inputs, self.axes),
        )  # fmt: skip

    def score(self, metric, name, kind=None, **options):
        maps = self.explain(name, kind, **options).values
        return float(metrics.info(metric).compute(maps, self.context).values.nanmean())


@pytest.fixture(scope="module")
def words():
    return Words()


def test_the_baseline_decides_the_sign_of_faithfulness(words):
    """Measured on 60 words: 0.49 from silence, -0.20 from 0 dB, the loudest input."""
    silence = words.score("faithfulness_patch", "ig_silence")
    loudest = words.score("faithfulness_patch", "integrated_gradients", "legacy_zero")
    assert silence > 0.3 and loudest < 0


def test_noise_floor_and_smoothing_find_the_cues_better_than_silence_alone(words):
    """Measured on 60 words: 0.40, 0.48, 0.58; chance 0.12."""
    silence, floor, smooth = (
        words.score("relevance_rank_accuracy", name)
        for name in ("ig_silence", "ig_noisefloor", "ig_smooth_noisefloor")
    )
    assert 2 * words.chance < silence < floor < smooth


@pytest.mark.parametrize("name", ["ig_silence", "ig_gain"])
def test_maps_are_complete(words, name):
    """The net's kinks ask for more than the default: median 2.1 % with 32 steps, 1.1 % with 64."""
    result = words.explain(name, rows=slice(0, 12), n_steps=128)
    assert result.completeness_error.median() <= 0.01
