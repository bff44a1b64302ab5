from __future__ import annotations

import hashlib
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sonolens.data.audio import Audio, BadRecording, read_audio, resample, usable, write_wav
from sonolens.sources import source_root


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_sixteen_bit_is_bit_equal_to_libsndfile(tmp_path, generator, suffix, n_channels):
    integers = generator.integers(-32768, 32768, (500, n_channels)).astype(np.int16)
    integers[:2] = [[-32768] * n_channels, [32767] * n_channels]
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, integers, 11025, subtype="PCM_16")
    audio = read_audio(path)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    assert audio.waveform.dtype == np.float32
    assert audio.waveform.flags.c_contiguous
    np.testing.assert_array_equal(audio.waveform, expected.mean(axis=1, dtype=np.float32))
    assert (audio.sample_rate, audio.sample_rate_native, audio.n_channels_native) == (
        11025,
        11025,
        n_channels,
    )
    assert audio.duration_s == pytest.approx(500 / 11025)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_other_sample_formats(tmp_path, tone, subtype):
    soundfile.write(tmp_path / "a.wav", tone(), 8000, subtype=subtype)
    expected, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav").waveform, expected)


def test_lossy_formats_are_read(tmp_path, tone):
    soundfile.write(tmp_path / "a.ogg", tone(duration_s=0.5), 8000)
    waveform = read_audio(tmp_path / "a.ogg").waveform
    assert abs(len(waveform) - 4000) < 200
    assert 0.3 < np.abs(waveform).max() < 0.7


def _bad_files(folder: Path) -> dict[str, Path]:
    """One file per way of being bad, by what the reason must say."""
    good = folder / "good.wav"
    write_wav(good, np.full(1000, 0.25), 8000)
    content = good.read_bytes()
    flac = folder / "good.flac"
    soundfile.write(flac, np.random.default_rng(0).uniform(-1, 1, 20000), 8000)
    files = {
        "missing": folder / "absent.wav",
        "empty file": folder / "empty.wav",
        "no samples": folder / "none.wav",
        "not audio": folder / "text.wav",
        "truncated: 1000 bytes": folder / "short.wav",
        "truncated|not audio": folder / "short.flac",
        "not finite: 2 of 100": folder / "nan.wav",
        "silent": folder / "zeros.wav",
        "cannot be read": folder / "folder.wav",
    }
    files["empty file"].write_bytes(b"")
    soundfile.write(files["no samples"], np.zeros(0), 8000, subtype="PCM_16")
    files["not audio"].write_text("Sorry, the page you asked for does not exist.\n" * 5)
    files["truncated: 1000 bytes"].write_bytes(content[:-1000])
    files["truncated|not audio"].write_bytes(flac.read_bytes()[:20000])
    samples = np.full(100, 0.1, np.float32)
    samples[[3, 7]] = np.nan, np.inf
    soundfile.write(files["not finite: 2 of 100"], samples, 8000, subtype="FLOAT")
    write_wav(files["silent"], np.zeros(100), 8000)
    files["cannot be read"].mkdir()
    return files


def test_bad_files_are_refused_with_path_and_reason(tmp_path):
    for reason, path in _bad_files(tmp_path).items():
        with pytest.raises(BadRecording, match=reason) as caught:
            read_audio(path)
        assert caught.value.path == str(path)
        assert str(path) in str(caught.value)
        assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason


def test_channels_that_cancel_are_silent(tmp_path, tone):
    soundfile.write(tmp_path / "a.wav", np.stack([tone(), -tone()], axis=1), 8000, subtype="FLOAT")
    with pytest.raises(BadRecording, match="silent"):
        read_audio(tmp_path / "a.wav")


def test_streamed_wav_without_a_length_is_not_called_truncated(tmp_path):
    write_wav(tmp_path / "a.wav", np.full(1000, 0.25), 8000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[40:44] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "a.wav").write_bytes(content)
    assert len(read_audio(tmp_path / "a.wav").waveform) == 1000


@pytest.mark.parametrize(("from_rate", "to_rate"), [(48000, 8000), (8000, 16000), (44100, 8000)])
def test_resampling_keeps_a_tone_and_removes_what_would_alias(tone, from_rate, to_rate):
    kept = resample(tone(1000, 1.0, from_rate), from_rate, to_rate)
    assert kept.dtype == np.float32
    assert abs(len(kept) - to_rate) <= 1
    spectrum = np.abs(np.fft.rfft(kept[:to_rate]))
    assert np.argmax(spectrum) == 1000
    assert spectrum[1000] / (to_rate / 2) == pytest.approx(0.5, rel=0.01)
    if to_rate < from_rate:
        assert (
            np.abs(
                resample(tone(0.7 * to_rate, 1.0, from_rate), from_rate, to_rate)[200:-200]
            ).max()
            < 1e-3
        )


def test_resampling_to_the_same_rate_changes_nothing(tone):
    assert np.array_equal(resample(tone(), 8000, 8000), tone())


def test_usable_sound_is_resampled_and_the_rest_refused(tone):
    assert len(usable(Audio(tone(), 8000, 8000, 1), 16000, "a.wav")) == 3200
    short = Audio(tone(duration_s=0.01), 8000, 8000, 1, "f00")
    with pytest.raises(BadRecording, match=r"a.wav: too short: 0.0100 s, need 0.05 s") as caught:
        usable(short, 8000, "a.wav")
    assert caught.value.sha256 == "f00"
    assert len(usable(short, 8000, "a.wav", min_duration_s=0.01)) == 80
    # The smallest number there is becomes zero at the lower rate.
    faint = np.zeros(4800, np.float32)
    faint[0] = np.finfo(np.float32).smallest_subnormal
    with pytest.raises(BadRecording, match="a.wav: silent at 8000 Hz"):
        usable(Audio(faint, 48000, 48000, 1), 8000, "a.wav")


def test_resampling_refuses_nonsense(tone):
    with pytest.raises(ValueError, match="above 0"):
        resample(tone(), 8000, 0)
    with pytest.raises(ValueError, match=r"need \(time,\)"):
        resample(np.zeros((2, 10), np.float32), 8000, 4000)


def test_sixteen_bit_files_survive_reading_and_writing_byte_for_byte(tmp_path, generator):
    integers = generator.integers(-32768, 32768, 5000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", integers, 8000, subtype="PCM_16")
    assert (
        write_wav(tmp_path / "deep" / "b.wav", read_audio(tmp_path / "a.wav").waveform, 8000) == 1.0
    )
    assert (tmp_path / "deep" / "b.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()


def test_only_too_loud_sound_is_scaled(tmp_path, tone):
    assert write_wav(tmp_path / "a.wav", 0.1 * tone(), 8000) == 1.0
    assert write_wav(tmp_path / "b.wav", tone() * 5, 8000) == pytest.approx(0.4, rel=1e-3)
    assert np.abs(read_audio(tmp_path / "b.wav").waveform).max() == pytest.approx(1, abs=1e-4)


def test_equal_sound_gives_equal_bytes_and_nothing_is_left_beside(tmp_path, tone):
    for name in ("a.wav", "b.wav"):
        write_wav(tmp_path / name, tone(), 8000)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(0), "time > 0"),
        (np.zeros((2, 3)), "need"),
        (np.array([0, np.nan]), "NaN or infinite"),
    ],
)
def test_writing_refuses_what_is_no_sound(tmp_path, values, message):
    with pytest.raises(ValueError, match=message):
        write_wav(tmp_path / "a.wav", values, 8000)
    assert not (tmp_path / "a.wav").exists()


def test_hash_is_that_of_the_file(tmp_path, tone):
    write_wav(tmp_path / "a.wav", tone(), 8000)
    assert (
        read_audio(tmp_path / "a.wav").sha256
        == hashlib.sha256((tmp_path / "a.wav").read_bytes()).hexdigest()
    )
    assert Audio(tone(), 8000, 8000, 1).sha256 == ""


def test_reading_data_loads_no_torch():
    modules = "sonolens.data.manifest, sonolens.data.splits, sonolens.data.acquire"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(source_root())}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=env).returncode == 0
