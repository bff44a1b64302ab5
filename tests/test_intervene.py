"""Keeping and removing parts of a recording under a mask on the mel grid."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfiltfilt

from sonolens import rng
from sonolens.dsp.spectrogram import LogMel
from sonolens.intervene.spectral import keep, top_share

MEL = LogMel(
    sample_rate=8000, n_fft=512, hop_length=125, n_mels=32, n_frames=32, f_min=50, f_max=4000
)
FULL = torch.ones(MEL.n_mels, MEL.n_frames)


def noise(n_samples: int = MEL.n_samples, low_hz: float = 200, high_hz: float = 3600) -> np.ndarray:
    """Noise inside the band of the mel filters."""
    white = rng.numpy_generator("noise", n_samples).standard_normal(n_samples)
    band = butter(8, [low_hz, high_hz], "bandpass", fs=MEL.sample_rate, output="sos")
    return (0.1 * sosfiltfilt(band, white)).astype(np.float32)


def rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def band(low_hz: float, high_hz: float) -> torch.Tensor:
    inside = (MEL.frequencies_hz >= low_hz) & (MEL.frequencies_hz <= high_hz)
    return torch.from_numpy(inside).float()[:, None].expand(-1, MEL.n_frames).clone()


@pytest.mark.parametrize(
    "n_samples", [MEL.n_samples, MEL.n_samples - 37, MEL.n_samples + 1001, 700]
)
def test_parts_under_a_mask_and_its_complement_add_up(n_samples):
    sound = noise(n_samples)
    mask = torch.from_numpy(rng.numpy_generator("mask").random((MEL.n_mels, MEL.n_frames)))
    kept, removed = keep(sound, mask, MEL), keep(sound, 1 - mask, MEL)
    assert kept.shape == removed.shape == sound.shape
    assert kept.dtype == np.float32
    assert rms(kept + removed - sound) < 0.01 * rms(sound)
    assert rms(kept) < 0.9 * rms(sound)


def test_a_mask_of_ones_keeps_all_and_one_of_zeros_nothing():
    sound = noise()
    assert rms(keep(sound, FULL, MEL) - sound) < 0.01 * rms(sound)
    assert not keep(sound, 0 * FULL, MEL).any()


@settings(max_examples=10, deadline=None)
@given(st.floats(0, 1))
def test_a_constant_mask_is_a_gain(gain):
    sound = noise()
    assert rms(keep(sound, gain * FULL, MEL) - gain * sound) < 0.01 * rms(sound)


@pytest.mark.parametrize("tone_hz", [400, 1500, 3000])
def test_a_tone_outside_the_mask_is_removed_and_one_inside_stays(tone, tone_hz):
    sound = tone(tone_hz, 0.5)
    near = band(tone_hz / 1.3, tone_hz * 1.3)
    middle = slice(1000, 3000)  # away from the onsets, which are wide
    assert rms(keep(sound, near, MEL)[middle] - sound[middle]) < 0.02 * rms(sound)
    assert rms(keep(sound, 1 - near, MEL)[middle]) < 0.02 * rms(sound)


def test_one_of_two_tones_is_taken_out(tone):
    low, high = tone(500, 0.5), tone(2500, 0.5)
    without = keep(low + high, 1 - band(2000, 3100), MEL)
    assert rms((without - low)[1000:3000]) < 0.02 * rms(low)


def test_a_mask_in_time_keeps_only_its_frames():
    mask = FULL.clone()
    mask[:, : MEL.n_frames // 2] = 0
    sound, cut = noise(), MEL.n_samples // 2
    kept = keep(sound, mask, MEL)
    assert rms(kept[: cut - MEL.n_fft]) < 0.001 * rms(sound)
    # The abrupt end of the sound has some energy below the lowest band.
    assert rms(kept[cut + MEL.n_fft :] - sound[cut + MEL.n_fft :]) < 0.02 * rms(sound)


def test_a_longer_recording_goes_on_under_the_last_column():
    sound = noise(2 * MEL.n_samples)
    mask = FULL.clone()
    mask[:, -4:] = 0
    assert rms(keep(sound, mask, MEL)[MEL.n_samples + MEL.n_fft :]) < 0.001 * rms(sound)


def test_the_recording_and_the_mask_are_not_changed():
    sound, mask = noise(), FULL / 2
    before = sound.copy(), mask.clone()
    keep(sound, mask, MEL)
    np.testing.assert_array_equal(sound, before[0])
    assert torch.equal(mask, before[1])


def test_top_share_scales_the_positive_part_to_its_quantile():
    attribution = torch.linspace(-1, 1, 201).reshape(3, 67)
    share = top_share(attribution, 0.75)
    assert share.shape == attribution.shape
    assert not share[attribution <= 0].any()
    level = torch.quantile(attribution.clamp_min(0).flatten(), 0.75)
    torch.testing.assert_close(share, (attribution / level).clamp(0, 1))
    torch.testing.assert_close(top_share(7 * attribution, 0.75), share)


@pytest.mark.parametrize("attribution", [torch.zeros(4, 4), -torch.ones(4, 4)])
def test_top_share_of_nothing_positive_is_nothing(attribution):
    assert torch.equal(top_share(attribution), torch.zeros(4, 4))
