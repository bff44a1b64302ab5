"""Front ends against librosa."""

from __future__ import annotations

import numpy as np
import torch
from run import Case

from sonolens.dsp.scale import unit_to_db
from sonolens.dsp.spectrogram import LogMel, stft

SAMPLE_RATE, N_FFT, HOP_LENGTH, N_MELS = 16000, 1024, 125, 128
N_CLIPS = 32


def cases() -> list[Case]:
    """Rows stft and mel."""
    clips = np.random.default_rng(0).standard_normal((N_CLIPS, SAMPLE_RATE)).astype(np.float32)
    batch = torch.from_numpy(clips)
    front_end = LogMel(SAMPLE_RATE, N_FFT, HOP_LENGTH, N_MELS, 128, 0.0, SAMPLE_RATE / 2)
    options = {"n_fft": N_FFT, "hop_length": HOP_LENGTH}

    def peer_stft() -> list[np.ndarray]:
        import librosa

        return [librosa.stft(clip, pad_mode="constant", **options) for clip in clips]

    def peer_mel() -> list[np.ndarray]:
        import librosa

        settings = {"sr": SAMPLE_RATE, "n_mels": N_MELS, "pad_mode": "constant", **options}
        mels = [librosa.feature.melspectrogram(y=clip, **settings) for clip in clips]
        return [librosa.power_to_db(mel, ref=np.max) for mel in mels]

    def ours_stft() -> torch.Tensor:
        return stft(batch, N_FFT, HOP_LENGTH)

    def ours_mel() -> torch.Tensor:
        return front_end(batch)

    def check_stft() -> None:
        error = np.abs(np.stack(peer_stft()) - ours_stft().numpy()).max()
        assert error < 1e-3, f"spectra differ by {error:.2g}"

    def check_mel() -> str:
        theirs = np.stack(peer_mel())[..., : front_end.n_frames]
        error = np.abs(theirs - unit_to_db(ours_mel())[:, 0].numpy()).max()
        assert error < 0.05, f"maps differ by {error:.2g} dB"
        return f"equal within {error:.1g} dB"

    size = f"{N_CLIPS} clips of 1 s at 16 kHz, one by one in librosa"
    return [
        Case("stft", "front_end", peer_stft, ours_stft, check_stft, 1.5, size),
        Case("mel", "front_end", peer_mel, ours_mel, check_mel, 2.5, f"{size}, {N_MELS} bands, dB"),
    ]
