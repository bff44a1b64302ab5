import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonolens.dsp import spectrogram
from sonolens.dsp.scale import power_to_unit
from sonolens.dsp.spectrogram import LogMel, istft, mel_filters, stft


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n_samples).astype(np.float32)


def make(reference="clip_max") -> LogMel:
    return LogMel(8000, 512, 125, 64, 64, 50.0, 4000.0, reference)


@pytest.mark.parametrize(("sample_rate", "n_fft", "n_mels"), [(8000, 512, 64), (22050, 2048, 128)])
def test_mel_filters_equal_librosa(sample_rate, n_fft, n_mels):
    import librosa

    theirs = librosa.filters.mel(
        sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=30, fmax=sample_rate / 2
    )
    np.testing.assert_allclose(
        mel_filters(sample_rate, n_fft, n_mels, 30, sample_rate / 2), theirs, atol=1e-8
    )


def test_log_mel_equals_librosa():
    import librosa

    waveform = noise(8000)
    theirs = librosa.feature.melspectrogram(
        y=waveform,
        sr=8000,
        n_fft=512,
        hop_length=125,
        n_mels=64,
        fmin=50,
        fmax=4000,
        center=True,
        pad_mode="constant",
    )[:, :64]
    ours = make().power(torch.from_numpy(waveform)[None])[0].numpy()
    assert np.abs(ours - theirs).max() <= 1e-6 * theirs.max()
    theirs_db = librosa.power_to_db(theirs, ref=np.max, top_db=80)
    ours_db = make()(torch.from_numpy(waveform)[None])[0, 0].numpy() * 80 - 80
    np.testing.assert_allclose(ours_db, theirs_db, atol=1e-3)


def test_stft_equals_librosa():
    import librosa

    waveform = noise(4000)
    theirs = librosa.stft(waveform, n_fft=256, hop_length=64, pad_mode="constant")
    ours = stft(torch.from_numpy(waveform)[None], 256, 64)[0].numpy()
    assert np.abs(ours - theirs).max() <= 1e-6 * np.abs(theirs).max()


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([(256, 64), (512, 125), (512, 256)]), st.integers(2000, 6000))
def test_istft_inverts_stft(sizes, n_samples):
    waveform = torch.from_numpy(noise(n_samples)).double()[None]
    back = istft(stft(waveform, *sizes), *sizes, n_samples)
    torch.testing.assert_close(back, waveform, atol=1e-9, rtol=0)


@settings(max_examples=10, deadline=None)
@given(st.floats(200, 3500))
def test_a_tone_peaks_in_its_band(frequency_hz):
    mel = make()
    tone = np.sin(2 * np.pi * frequency_hz * np.arange(8000) / 8000).astype(np.float32)
    band = int(mel(torch.from_numpy(tone)[None])[0, 0, :, 32].argmax())
    assert abs(mel.frequencies_hz[band] - frequency_hz) <= np.diff(mel.frequencies_hz).max()


def test_silence_is_zero_and_the_loudest_cell_one():
    mel = make()
    assert not mel(torch.zeros(2, 8000)).any()
    loud = mel(torch.from_numpy(noise(8000))[None])
    assert float(loud.max()) == 1.0
    assert float(loud.min()) >= 0.0


def test_full_scale_keeps_level_differences():
    mel, waveform = make("full_scale"), torch.from_numpy(noise(8000))[None] * 1e-2
    louder, softer = mel(waveform), mel(waveform / 10)
    inside = (softer > 0) & (louder < 1)
    torch.testing.assert_close(
        (louder - softer)[inside], torch.full_like(louder[inside], 0.25), atol=1e-4, rtol=0
    )


def test_items_do_not_influence_each_other():
    batch = torch.from_numpy(np.stack([noise(8000, 1), 50 * noise(8000, 2)]))
    torch.testing.assert_close(make()(batch)[:1], make()(batch[:1]), atol=2e-6, rtol=0)


def test_linear_mask_of_ones_is_one_everywhere():
    linear = make().linear_mask(torch.ones(64, 64, dtype=torch.float64))
    torch.testing.assert_close(linear, torch.ones(257, 65, dtype=torch.float64))


def test_linear_mask_of_bins_outside_all_bands_is_that_of_the_nearest():
    mask = torch.zeros(64, 64)
    mask[0], mask[-1] = 0.25, 0.75
    linear = make().linear_mask(mask)
    bins_hz = np.linspace(0, 4000, 257)
    assert torch.equal(linear[bins_hz <= 50], torch.full((4, 65), 0.25))
    assert torch.equal(linear[-1], torch.full((65,), 0.75))


def test_mel_scale_inverse():
    frequencies_hz = np.linspace(0, 8000, 50)
    np.testing.assert_allclose(
        spectrogram.mel_to_hz(spectrogram.hz_to_mel(frequencies_hz)), frequencies_hz, atol=1e-8
    )


def test_power_to_unit_of_each_item_alone():
    power = torch.tensor([[[1.0, 0.01]], [[100.0, 1.0]]])
    torch.testing.assert_close(power_to_unit(power)[0], power_to_unit(power)[1])
