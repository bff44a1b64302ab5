"""Keeping, removing and amplifying parts of a recording under a mask on the mel grid, controls."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfiltfilt

from sonolens import rng
from sonolens.dsp.level import level_dbfs
from sonolens.dsp.spectrogram import LogMel
from sonolens.intervene import controls, versions
from sonolens.intervene.spectral import (
    InterveneError,
    Parts,
    amplify,
    keep,
    top_cells,
    top_share,
)

MEL = LogMel(
    sample_rate=8000, n_fft=512, hop_length=125, n_mels=32, n_frames=32, f_min=50, f_max=4000
)
FULL = torch.ones(MEL.n_mels, MEL.n_frames)


def noise(n_samples: int = MEL.n_samples, low_hz: float = 200, high_hz: float = 3600) -> np.ndarray:
    """Noise inside the band of the mel filters."""
    white = rng.numpy_generator("noise", n_samples).standard_normal(n_samples)
    band = butter(8, [low_hz, high_hz], "bandpass", fs=MEL.sample_rate, output="sos")
    return (0.1 * sosfiltfilt(band, white)).astype(np.float32)


def random_mask(*names: str) -> torch.Tensor:
    return torch.from_numpy(rng.numpy_generator(*names).random((MEL.n_mels, MEL.n_frames)))


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
    mask = random_mask("mask")
    kept, removed = keep(sound, mask, MEL), keep(sound, 1 - mask, MEL)
    assert kept.shape == removed.shape == sound.shape
    assert kept.dtype == np.float32
    np.testing.assert_allclose(kept + removed, sound, atol=1e-6, rtol=0)
    assert rms(kept) < 0.9 * rms(sound)


@pytest.mark.parametrize("n_samples", [MEL.n_samples, MEL.n_samples + 1001, 700])
def test_a_mask_of_ones_keeps_every_sample_and_one_of_zeros_nothing(n_samples):
    # White and with an offset: also what lies outside all bands is kept.
    sound = 0.2 * rng.numpy_generator("white").standard_normal(n_samples) + 0.1
    sound = sound.astype(np.float32)
    np.testing.assert_allclose(keep(sound, FULL, MEL), sound, atol=1e-6, rtol=0)
    np.testing.assert_allclose(Parts(sound, MEL).under(FULL), sound, atol=1e-12, rtol=0)
    assert not keep(sound, 0 * FULL, MEL).any()


@settings(max_examples=10, deadline=None)
@given(st.floats(0, 1))
def test_a_constant_mask_is_a_gain(gain):
    sound = noise()
    np.testing.assert_allclose(keep(sound, gain * FULL, MEL), gain * sound, atol=1e-6, rtol=0)


def test_the_part_under_a_mask_is_that_of_scipy():
    """Slow reference: scipy's STFT, bands one by one."""
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    sound, mask = noise(), random_mask("scipy")
    transform = ShortTimeFFT(hann(MEL.n_fft, sym=False), MEL.hop_length, MEL.sample_rate)
    spectrum = transform.stft(sound.astype(np.float64))
    frames = np.clip(np.arange(transform.p_min, transform.p_max(len(sound))), 0, MEL.n_frames - 1)
    filters = MEL.filters(torch.float64).numpy()
    for row in range(spectrum.shape[0]):
        weights = filters[:, row]
        if not weights.any():
            weights = np.eye(MEL.n_mels)[0 if row < 10 else -1]
        spectrum[row] *= weights @ mask.numpy()[:, frames] / weights.sum()
    # scipy's inverse uses the dual window, torch's divides by the sum of squares: the same.
    expected = transform.istft(spectrum, k1=len(sound))
    middle = slice(MEL.n_fft, -MEL.n_fft)
    np.testing.assert_allclose(Parts(sound, MEL).under(mask)[middle], expected[middle], atol=1e-10)


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
    assert rms(kept[cut + MEL.n_fft :] - sound[cut + MEL.n_fft :]) < 1e-6


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


@pytest.mark.parametrize("gain_db", [6.0, -20.0, -np.inf, 0.0])
def test_amplify_changes_the_part_alone_by_its_gain(tone, gain_db):
    low, high = tone(500, 0.5), tone(2500, 0.5)
    changed = amplify(low + high, band(2000, 3100), MEL, gain_db)
    expected = low + 10 ** (gain_db / 20) * high
    assert changed.dtype == np.float32
    assert rms((changed - expected)[1000:3000]) < 0.02 * rms(high)


def test_amplify_everywhere_is_a_gain_and_removing_is_its_limit():
    sound, mask = noise(), random_mask("amplify")
    np.testing.assert_allclose(amplify(sound, FULL, MEL, 20), 10 * sound, atol=1e-6)
    removed = amplify(sound, mask, MEL, -np.inf)
    np.testing.assert_allclose(removed, keep(sound, 1 - mask, MEL), atol=1e-6)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InterveneError, match=r"mask \(3, 32\), need \(32, 32\)"):
        keep(noise(), torch.ones(3, 32), MEL)
    with pytest.raises(InterveneError, match=r"waveform \(0,\), need \(time,\)"):
        keep(np.zeros(0, np.float32), FULL, MEL)


@pytest.mark.parametrize("hop_length", [257, 500, 512, 1000])
def test_frames_that_hardly_overlap_are_taken_apart_as_well(hop_length):
    """torch's inverse divides by the windows' sum, which is almost nothing between such frames."""
    mel = LogMel(8000, 512, hop_length, 32, 8, 50, 4000)
    sound = noise(mel.n_samples)
    np.testing.assert_allclose(keep(sound, torch.ones(32, 8), mel), sound, atol=1e-6)
    mask = torch.from_numpy(rng.numpy_generator("sparse").integers(0, 2, (32, 8)))
    assert np.abs(keep(sound, mask, mel)).max() < 1.5 * np.abs(sound).max()
    times = torch.zeros(32, 8)
    times[:, 4] = 1
    kept = keep(sound, times, mel)
    reach = hop_length // 2 + mel.n_fft
    centre = 4 * hop_length
    assert rms(kept[centre - hop_length // 4 : centre + hop_length // 4]) > 0.5 * rms(sound)
    assert not np.abs(kept[: max(0, centre - reach)]).max(initial=0) > 1e-9
    assert not np.abs(kept[centre + reach :]).max(initial=0) > 1e-9


def test_top_cells_are_the_largest_and_only_positive_ones():
    attribution = torch.linspace(-1, 1, 200).flip(0).reshape(4, 50)
    mask = top_cells(attribution, 0.1)
    assert mask.flatten().tolist() == [1] * 20 + [0] * 180
    assert torch.equal(top_cells(attribution, 0.9), (attribution > 0).float())
    assert not top_cells(-torch.ones(4, 4), 0.5).any()
    assert top_cells(torch.ones(2, 4), 0.5).flatten().tolist() == [1] * 4 + [0] * 4


@pytest.mark.parametrize(
    "mask", [random_mask("share"), band(1000, 2000), 0.01 * FULL, FULL, 0 * FULL]
)
def test_a_random_control_has_as_many_cells(mask):
    control = controls.same_share(mask, 7)
    assert control.shape == mask.shape
    assert float(control.sum()) == pytest.approx(float(mask.double().sum()), abs=1e-9)
    assert int(((control > 0) & (control < 1)).sum()) <= np.prod(controls.PATCH)
    assert torch.equal(control, controls.same_share(mask, 7))


def test_controls_differ_by_seed_and_lie_everywhere():
    mask = 0.3 * FULL
    mean = sum(controls.same_share(mask, seed) for seed in range(300)) / 300
    assert float((mean - 0.3).abs().max()) < 0.15  # five standard deviations
    assert not torch.equal(controls.same_share(mask, 0), controls.same_share(mask, 1))


def test_a_control_is_made_of_patches():
    control = controls.same_share(0.25 * FULL, 3).numpy()
    # Edges between cells: a scattered mask has many more.
    edges = (np.diff(control, axis=0) != 0).sum() + (np.diff(control, axis=1) != 0).sum()
    assert edges < 0.2 * control.size


MASKS = {"soft": random_mask("energy") ** 4, "band": band(500, 1200), "half": 0.5 * FULL}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("part", ["kept", "removed"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_control_of_equal_energy_leaves_a_sound_as_loud(mask, part, seed):
    sound = noise() * np.linspace(0, 2, MEL.n_samples).astype(np.float32)
    parts = Parts(sound, MEL)
    control = controls.same_energy(parts, mask, seed, part)
    assert ((control >= 0) & (control <= 1)).all()
    own, other = (parts.under(m if part == "kept" else 1 - m) for m in (mask, control))
    assert own @ own > 1e-3 * (sound @ sound)
    assert abs(other @ other - own @ own) < 1e-6 * (sound @ sound)
    assert torch.equal(control, controls.same_energy(parts, mask, seed, part))


@pytest.mark.parametrize("part", ["kept", "removed"])
@pytest.mark.parametrize("gain", [0, 1])
def test_controls_of_all_and_nothing(gain, part):
    control = controls.same_energy(Parts(noise(), MEL), gain * FULL, 0, part)
    np.testing.assert_allclose(control.mean(), gain, atol=1e-6)


def test_controls_of_silence_are_silent():
    parts = Parts(np.zeros(MEL.n_samples, np.float32), MEL)
    for part in ("kept", "removed"):
        assert not parts.under(controls.same_energy(parts, 0.5 * FULL, 0, part)).any()


def ask(sounds: np.ndarray) -> np.ndarray:
    return np.stack([np.square(sounds).mean(1), np.abs(sounds).max(1)], 1)


def test_versions_are_what_they_are_called():
    sound, mask = noise(), random_mask("versions") ** 3
    made = {version.kind: version for version in versions.make(sound, mask, MEL, ask, 5)}
    assert tuple(made) == versions.KINDS
    np.testing.assert_array_equal(made["original"].waveform, sound)
    np.testing.assert_array_equal(made["kept"].waveform, keep(sound, mask, MEL))
    for kind in ("", "random_"):
        both = made[f"{kind}kept"].waveform + made[f"{kind}removed"].waveform
        np.testing.assert_allclose(both, sound, atol=1e-6)
        assert made[f"{kind}kept"].share == pytest.approx(float(mask.mean()))
    for part in ("kept", "removed"):
        assert made[f"energy_{part}"].level_dbfs == pytest.approx(made[part].level_dbfs, abs=0.01)
    for version in made.values():
        assert version.level_dbfs == pytest.approx(20 * np.log10(rms(version.waveform)))
        np.testing.assert_array_equal(version.probabilities, ask(version.waveform[None])[0])


def test_versions_of_a_map_that_speaks_for_nothing():
    made = {v.kind: v for v in versions.make(noise(), 0 * FULL, MEL, ask, 5)}
    assert made["kept"].level_dbfs == made["energy_kept"].level_dbfs == -np.inf
    assert made["removed"].level_dbfs == pytest.approx(level_dbfs(noise()))


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
