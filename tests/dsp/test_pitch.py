"""The fundamental frequency is found in a spectrogram, as fine as its bands allow."""

import numpy as np
import pytest
import torch

from sonolens.data.synth import formant_words as synth
from sonolens.dsp.pitch import f0_track
from sonolens.dsp.scale import unit_to_db
from sonolens.dsp.spectrogram import LogMel

FRONT_END = LogMel(8000, 512, 125, 64, 64, 50.0, 4000.0)


def level_db(waveform):
    return unit_to_db(FRONT_END(torch.from_numpy(waveform)[None]))[0, 0].double().numpy()


@pytest.mark.parametrize("index", range(8))
def test_pitch_of_words_is_found_within_a_semitone(index):
    what = synth.utterance(synth.WORDS[index], synth.speaker(index, 7), 0, (35.0, 55.0), 7)
    found_hz = f0_track(level_db(synth.render(what)), FRONT_END.frequencies_hz)
    position = (FRONT_END.times_s - what.onset_s) / what.duration_s
    true_hz = what.f0_start_hz + (what.f0_end_hz - what.f0_start_hz) * np.clip(position, 0, 1)
    inside = (position > 0.05) & (position < 0.95)
    semitones = 12 * np.log2(found_hz[inside] / true_hz[inside])
    assert (np.abs(semitones) < 1).mean() > 0.95
    assert np.isnan(found_hz[(position < -0.1) | (position > 1.1)]).mean() > 0.9


def test_noise_has_no_pitch():
    noise = np.random.default_rng(0).normal(size=8000).astype(np.float32)
    assert np.isnan(f0_track(level_db(0.1 * noise), FRONT_END.frequencies_hz)).mean() > 0.6


def test_a_comb_of_lines_is_found_exactly():
    frequencies_hz = np.arange(0.0, 2001.0, 10.0)
    levels = np.full((201, 7), -60.0)
    levels[20:200:20] = 0.0  # 200 Hz
    np.testing.assert_allclose(f0_track(levels, frequencies_hz), 200, rtol=0.01)


def test_bands_that_resolve_no_harmonics_are_refused():
    with pytest.raises(ValueError, match="260 Hz apart or more resolve no harmonics"):
        f0_track(np.zeros((16, 4)), np.linspace(100, 4000, 16))
