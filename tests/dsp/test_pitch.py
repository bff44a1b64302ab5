"""Pitch of waveforms against tones and YIN's definition; of spectrograms within their bands."""

import numpy as np
import pytest
import torch

from sonolens.data.synth import formant_words as synth
from sonolens.dsp.pitch import f0_track, yin
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


def voice(f0_hz, sample_rate=8000, n_samples=4000):
    times_s = np.arange(n_samples) / sample_rate
    return torch.tensor(sum(np.sin(2 * np.pi * k * f0_hz * times_s + k) / k for k in range(1, 6)))


@pytest.mark.parametrize("f0_hz", [70.0, 101.3, 220.0, 340.0, 490.0])
def test_a_voice_has_its_pitch_in_every_inner_frame(f0_hz):
    found = yin(voice(f0_hz)[None], 8000, 100, 65, 500)
    assert found.shape == (1, 41)
    assert (found[0, 4:-4] / f0_hz - 1).abs().max() < 0.01


def test_noise_and_silence_have_none():
    noise = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    assert yin(noise, 8000, 100, 65, 500).isnan().double().mean() > 0.9
    assert yin(torch.zeros(1, 4000), 8000, 100, 65, 500).isnan().all()


def test_the_period_is_the_first_dip_of_the_normalised_difference():
    sound = voice(150.0) + 0.05 * torch.randn(4000, generator=torch.Generator().manual_seed(1))
    found = yin(sound[None], 8000, 100, 65, 500)[0, 20].item()
    longest = 124
    frame = sound.numpy()[2000 - longest : 2000 + longest]
    difference = np.array(
        [
            ((frame[:longest] - frame[lag : lag + longest]) ** 2).sum()
            for lag in range(1, longest + 1)
        ]
    )
    normalised = difference * np.arange(1, longest + 1) / np.cumsum(difference)
    lag = next(
        lag
        for lag in range(16, longest)
        if normalised[lag - 1] < 0.15
        and normalised[lag - 1] <= min(normalised[lag - 2], normalised[lag])
    )
    assert abs(8000 / found - lag) <= 1
