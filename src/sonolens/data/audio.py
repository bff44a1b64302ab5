"""Recordings to mono waveforms and back: the one place that decodes, resamples and writes sound."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from sonolens.store import whole

PCM_16_SCALE = 2.0**-15
# Writers that stream do not know the length in advance and leave these in the header.
UNKNOWN_LENGTHS = (0, 0xFFFFFFFF)
MIN_DURATION_S = 0.05
# 8-bit samples reach 127/128. A peak is not flat for three samples unless it was cut.
FULL_SCALE = 0.99
N_FLAT = 3


@dataclass(frozen=True)
class Audio:
    """A mono recording.

    Attributes
    ----------
    waveform
        shape=(time,), float32, full scale = 1.
    sample_rate, sample_rate_native
        Hz, as the waveform is now and as the file had it.
    n_channels_native
        Channels of the file; their mean is the waveform.
    sha256
        Of the bytes of the file; empty where there is no file.
    subtype_native
        Sample format of the file as libsndfile names it, e.g. PCM_U8, PCM_16, FLOAT.
    clipped_share
        Share of samples that are clipped in one of the channels, see `clipped_share`.
    """

    waveform: np.ndarray
    sample_rate: int
    sample_rate_native: int
    n_channels_native: int
    sha256: str = ""
    subtype_native: str = "computed"
    clipped_share: float = 0.0

    @property
    def duration_s(self) -> float:
        return len(self.waveform) / self.sample_rate


class BadRecording(ValueError):
    """A file holds no usable sound; `path`, `reason`, and `sha256` where it could be read."""

    def __init__(self, path: Path | str, reason: str, sha256: str = "") -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason, self.sha256 = str(path), reason, sha256

    def __reduce__(self) -> tuple[type[BadRecording], tuple[str, str, str]]:
        return type(self), (self.path, self.reason, self.sha256)


def read_audio(path: Path) -> Audio:
    """Decode a file to mono at its own rate.

    16-bit files are read as integers and scaled by 2**-15, which is bit-equal to libsndfile's
    float32 and about 1.8 times as fast.

    Parameters
    ----------
    path
        Any format libsndfile knows: WAV, FLAC, OGG, MP3, AIFF …

    Returns
    -------
    Audio
        shape=(time,), float32, mean of the channels, rate of the file.

    Raises
    ------
    BadRecording
        If the file is missing, empty, no audio, truncated, without samples, silent from end to end,
        or holds NaN or infinite samples.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise BadRecording(path, "missing") from error
    except OSError as error:
        raise BadRecording(path, f"cannot be read ({error.strerror or error})") from error
    digest = hashlib.sha256(content).hexdigest()
    if not content:
        raise BadRecording(path, "empty file, 0 bytes", digest)
    missing = _missing_bytes(content)
    if missing > 0:
        raise BadRecording(path, f"truncated: {missing} bytes of sound are missing", digest)
    try:
        samples, sample_rate, subtype = _decode(content)
    except soundfile.LibsndfileError as error:
        raise BadRecording(path, f"not audio, or damaged ({error.error_string})", digest) from error
    except _Truncated as error:
        raise BadRecording(path, str(error), digest) from error
    if len(samples) == 0:
        raise BadRecording(path, "no samples", digest)
    waveform = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    if not np.isfinite(waveform).all():
        n_bad = int((~np.isfinite(waveform)).sum())
        reason = f"not finite: {n_bad} of {len(waveform)} samples are NaN or infinite"
        raise BadRecording(path, reason, digest)
    if not waveform.any():
        raise BadRecording(path, "silent: every sample is zero", digest)
    return Audio(
        np.ascontiguousarray(waveform),
        sample_rate,
        sample_rate,
        samples.shape[1],
        digest,
        subtype,
        clipped_share(samples),
    )


def clipped_share(samples: np.ndarray) -> float:
    """Share of samples in runs of three or more equal ones at full scale, in any channel.

    Parameters
    ----------
    samples
        shape=(time, channel), full scale = 1.
    """
    loud = np.abs(samples) >= FULL_SCALE
    if not loud.any():
        return 0.0
    # flat[t]: samples t and t + 1 are equal and loud; a run of three holds two of them.
    flat = loud[1:] & (samples[1:] == samples[:-1])
    starts = flat[: len(flat) - N_FLAT + 2] & flat[N_FLAT - 2 :]
    clipped = np.zeros(samples.shape, bool)
    for shift in range(N_FLAT):
        clipped[shift : shift + len(starts)] |= starts
    return float(clipped.any(axis=1).mean())


class _Truncated(ValueError):
    """Fewer frames decoded than the header claims."""


def _decode(content: bytes) -> tuple[np.ndarray, int, str]:
    """Samples, shape=(time, channel), float32, their rate and their format in the file."""
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        if file.subtype == "PCM_16":
            integers = file.read(dtype="int16", always_2d=True)
            samples = integers.astype(np.float32) * np.float32(PCM_16_SCALE)
        else:
            samples = file.read(dtype="float32", always_2d=True)
        # Some formats, OGG and streams among them, only estimate the number of frames.
        if file.format in ("WAV", "FLAC", "AIFF") and len(samples) < file.frames:
            raise _Truncated(f"truncated: {len(samples)} of {file.frames} frames could be decoded")
        return samples, int(file.samplerate), str(file.subtype)


def _missing_bytes(content: bytes) -> int:
    """How much of a RIFF file's data chunk lies beyond its end; libsndfile shortens it silently."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return 0
    start = 12
    while start + 8 <= len(content):
        size = int.from_bytes(content[start + 4 : start + 8], "little")
        if content[start : start + 4] == b"data":
            return 0 if size in UNKNOWN_LENGTHS else start + 8 + size - len(content)
        start += 8 + size + size % 2
    return 0


def resample(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Band-limited change of rate, soxr quality HQ.

    Parameters
    ----------
    waveform
        shape=(time,), float32.
    from_rate, to_rate
        Hz.

    Returns
    -------
    ndarray, shape=(about time * to_rate / from_rate,), float32
        The waveform itself where the rates are equal.

    Raises
    ------
    ValueError
        If a rate is not positive or the waveform is not one-dimensional.
    """
    if from_rate <= 0 or to_rate <= 0:
        raise ValueError(f"sample rates {from_rate} and {to_rate} Hz: both must be above 0")
    if waveform.ndim != 1:
        raise ValueError(f"waveform has shape {waveform.shape}, need (time,)")
    waveform = np.ascontiguousarray(waveform, dtype=np.float32)
    if from_rate == to_rate:
        return waveform
    return np.asarray(soxr.resample(waveform, from_rate, to_rate, quality="HQ"), dtype=np.float32)


def usable(
    audio: Audio, sample_rate: int, path: Path | str, min_duration_s: float = MIN_DURATION_S
) -> np.ndarray:
    """The waveform at `sample_rate`, if there is enough sound in it to work with.

    Parameters
    ----------
    audio
        As `read_audio` gives it.
    sample_rate
        Hz, of the result.
    path
        Named in the error.
    min_duration_s
        Shorter recordings are refused.

    Returns
    -------
    ndarray, shape=(time,), float32

    Raises
    ------
    BadRecording
        If the recording is too short, or silent at the new rate.
    """
    if audio.duration_s < min_duration_s:
        reason = f"too short: {audio.duration_s:.4f} s, need {min_duration_s:g} s"
        raise BadRecording(path, reason, audio.sha256)
    waveform = resample(audio.waveform, audio.sample_rate, sample_rate)
    if not waveform.any():
        raise BadRecording(path, f"silent at {sample_rate} Hz", audio.sha256)
    return waveform


def pcm_16(values: np.ndarray) -> np.ndarray:
    """The nearest 16-bit integers, int16; full scale = 1, beyond it clipped."""
    # +1 has no 16-bit code: it becomes the largest there is.
    integers = np.rint(np.asarray(values, dtype=np.float64) / PCM_16_SCALE)
    return np.clip(integers, -32768, 32767).astype(np.int16)


def write_wav(path: Path, waveform: np.ndarray, sample_rate: int) -> float:
    """Write 16-bit mono WAV, whole or not at all; equal input gives equal bytes.

    What `read_audio` read from a 16-bit mono file is written back bit for bit.

    Parameters
    ----------
    path
        Where to; missing folders are made.
    waveform
        shape=(time,), full scale = 1. Scaled down only when its peak lies above 1.
    sample_rate
        Hz.

    Returns
    -------
    float
        The gain that was applied: 1, or 1 / peak.

    Raises
    ------
    ValueError
        If the waveform is not one-dimensional, is empty or holds NaN or infinite samples.
    """
    content, gain = wav(waveform, sample_rate, path)
    with whole(Path(path)) as stream:
        stream.write(content)
    return gain


def wav(waveform: np.ndarray, sample_rate: int, name: Path | str) -> tuple[bytes, float]:
    """Content of the file that `write_wav` writes, and the gain; `name` stands in its errors."""
    values = np.asarray(waveform, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"{name}: waveform has shape {values.shape}, need (time,) with time > 0")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: {int((~np.isfinite(values)).sum())} samples are NaN or infinite")
    peak = float(np.abs(values).max())
    gain = 1.0 if peak <= 1 else 1 / peak
    # libsndfile would lose the reason when the disk is full.
    content = io.BytesIO()
    soundfile.write(content, pcm_16(values * gain), sample_rate, subtype="PCM_16", format="WAV")
    return content.getvalue(), gain
