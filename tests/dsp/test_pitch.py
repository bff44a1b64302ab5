"""YIN against tones of known pitch and the definition, lag by lag."""

import numpy as np
import pytest
import torch

from sonolens.dsp.pitch import yin


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
