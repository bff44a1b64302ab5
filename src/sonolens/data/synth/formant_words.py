"""Ten words of two vowels whose only difference is known.

A word glides from one vowel to another, and nothing but the tracks of the first two formants
depends on the word; the third is a constant of the speaker. The voice is a sum of harmonics, each
weighted by the product of the formant resonators at its frequency, so nothing aliases and a formant
can be switched off: `render(..., without=("F2",))` is the same utterance lacking one mechanism. The
truth mask is the region around both formants; the resonators' skirts reach a little beyond it.

References
----------
Klatt, D. H. (1980). Software for a cascade/parallel formant synthesizer. JASA 67(3),
971-995, eq. 2 (resonator).
Peterson, G. E. and Barney, H. L. (1952). Control methods used in a study of the vowels. JASA
24(2), table II (men).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from sonolens import rng

SAMPLE_RATE = 8000
DURATION_S = 1.0
VOWELS_HZ = {"i": (270, 2290), "e": (530, 1840), "a": (730, 1090), "o": (570, 840), "u": (300, 870)}
F3_HZ = 2500.0  # the same in all vowels, so that it tells nothing
BANDWIDTHS_HZ = (80.0, 100.0, 140.0)
WORDS = tuple(first + second for first, second in combinations(VOWELS_HZ, 2))
CUES = ("F1", "F2")
HALF_WIDTH_HZ = 150.0


@dataclass(frozen=True)
class Speaker:
    """Who speaks.

    Vocal tract length as a factor on all formants, mean pitch in Hz, speaking rate as a factor on
    durations.
    """

    name: str
    formant_scale: float
    f0_hz: float
    tempo: float


@dataclass(frozen=True)
class Utterance:
    """All that decides one rendering; times in s, frequencies in Hz."""

    word: str
    speaker: Speaker
    onset_s: float
    duration_s: float
    glide_share: float
    f0_start_hz: float
    f0_end_hz: float
    snr_db: float
    gain_db: float
    noise_seed: int


def speaker(index: int, seed: int) -> Speaker:
    """Speaker number `index`, a function of (seed, index)."""
    draw = rng.numpy_generator(seed, "formant_words", "speaker", index)
    return Speaker(
        f"s{index:02d}", draw.uniform(0.88, 1.15), draw.uniform(95, 220), draw.uniform(0.85, 1.15)
    )


def utterance(
    word: str, who: Speaker, repetition: int, snr_db: tuple[float, float], seed: int
) -> Utterance:
    """Repetition of a word by a speaker, a function of (seed, speaker, word, repetition)."""
    parts = (seed, "formant_words", who.name, word, repetition)
    draw = rng.numpy_generator(*parts)
    duration_s = who.tempo * draw.uniform(0.42, 0.62)
    f0_hz = who.f0_hz * draw.uniform(0.94, 1.06)
    return Utterance(
        word=word,
        speaker=who,
        onset_s=draw.uniform(0.02, DURATION_S - duration_s - 0.02),
        duration_s=duration_s,
        glide_share=draw.uniform(0.25, 0.45),
        f0_start_hz=f0_hz * draw.uniform(1.02, 1.12),
        f0_end_hz=f0_hz * draw.uniform(0.82, 0.95),
        snr_db=draw.uniform(*snr_db),
        gain_db=draw.uniform(-20, -6),
        noise_seed=rng.seed_for(*parts, "noise"),
    )


def formants_hz(what: Utterance, times_s: np.ndarray) -> np.ndarray:
    """F1, F2, F3 at `times_s`, shape=(3, time); constant before and after the glide."""
    scale = what.speaker.formant_scale
    first, second = (np.array([*VOWELS_HZ[vowel], F3_HZ]) * scale for vowel in what.word)
    middle_s, half_s = what.onset_s + what.duration_s / 2, what.glide_share * what.duration_s / 2
    share = np.clip((times_s - middle_s + half_s) / (2 * half_s), 0, 1)
    return first[:, None] * (1 - share) + second[:, None] * share


def render(what: Utterance, without: tuple[str, ...] = (), noise: bool = True) -> np.ndarray:
    """Waveform of one utterance.

    Parameters
    ----------
    what
        The utterance.
    without
        Formants to switch off, of F1, F2, F3; everything else stays as it is.
    noise
        Add the background noise (half white, half pink power).

    Returns
    -------
    ndarray, shape=(8000,), float32
        One second at 8 kHz, peak of the voice at `gain_db` below full scale.
    """
    times_s = np.arange(int(SAMPLE_RATE * DURATION_S)) / SAMPLE_RATE
    position = (times_s - what.onset_s) / what.duration_s
    voiced = (position >= 0) & (position <= 1)
    f0_hz = what.f0_start_hz + (what.f0_end_hz - what.f0_start_hz) * np.clip(position, 0, 1)
    phase = 2 * np.pi * np.cumsum(f0_hz) / SAMPLE_RATE
    order = np.arange(1, int(SAMPLE_RATE / 2 / f0_hz.min()) + 1)[:, None]
    harmonics_hz = order * f0_hz[voiced]
    # Powers of one phasor: sin(k x) of all harmonics without a sine each.
    phasors = np.broadcast_to(np.exp(1j * phase[voiced]), harmonics_hz.shape)
    sines = np.cumprod(phasors, axis=0).imag
    # Glottal flow falls by about 12 dB per octave, lip radiation gives 6 back.
    sines *= np.where(harmonics_hz < 0.95 * SAMPLE_RATE / 2, 1 / order, 0)
    centres_hz = formants_hz(what, times_s[voiced])
    fade = np.minimum(
        1, np.minimum(position[voiced], 1 - position[voiced]) * what.duration_s / 0.02
    )
    voice = {
        switched: (_resonance(harmonics_hz, centres_hz, switched) * sines).sum(0) * fade
        for switched in {without, ()}
    }
    # The level is that of the complete voice, so switching a formant off changes nothing else.
    waveform = np.zeros(len(times_s))
    waveform[voiced] = voice[without] * 10 ** (what.gain_db / 20) / np.abs(voice[()]).max()
    if noise:
        waveform += _noise(what, len(times_s))
    return waveform.astype(np.float32)


def _resonance(
    frequency_hz: np.ndarray, centres_hz: np.ndarray, without: tuple[str, ...]
) -> np.ndarray:
    squared = frequency_hz**2
    power = np.ones_like(squared)
    for name, centre, bandwidth in zip(("F1", "F2", "F3"), centres_hz, BANDWIDTHS_HZ, strict=True):
        if name not in without:
            power *= centre**4 / ((centre**2 - squared) ** 2 + bandwidth**2 * squared)
    resonance: np.ndarray = np.sqrt(power)
    return resonance


def _noise(what: Utterance, n_samples: int) -> np.ndarray:
    white, source = np.random.default_rng(what.noise_seed).standard_normal((2, n_samples))
    spectrum = np.fft.rfft(source)
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    pink = np.fft.irfft(spectrum, n_samples)
    mixed = white + pink / pink.std()
    level = 10 ** ((what.gain_db - what.snr_db) / 20)
    noise: np.ndarray = mixed / np.sqrt(np.mean(mixed**2)) * level
    return noise


def cue_tracks(what: Utterance) -> pd.DataFrame:
    """Truth: within 150 Hz of F1 and F2 while the voice sounds.

    Columns as `dsp.regions.TRACK_COLUMNS`.
    """
    end_s = what.onset_s + what.duration_s
    middle_s, half_s = what.onset_s + what.duration_s / 2, what.glide_share * what.duration_s / 2
    times_s = np.array([what.onset_s, middle_s - half_s, middle_s + half_s, end_s])
    centres_hz = formants_hz(what, times_s)
    tracks = [
        pd.DataFrame(
            {
                "component": name,
                "time_s": times_s,
                "low_hz": centre - HALF_WIDTH_HZ,
                "high_hz": centre + HALF_WIDTH_HZ,
            }
        )
        for name, centre in zip(CUES, centres_hz, strict=False)
    ]
    return pd.concat(tracks, ignore_index=True)
