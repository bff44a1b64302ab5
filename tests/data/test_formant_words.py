"""The generator keeps its promises: what is said to be the cue is the cue."""

import numpy as np
import pytest
import torch

from sonolens.data.synth import formant_words as synth
from sonolens.dsp.regions import mask_from_tracks
from sonolens.dsp.spectrogram import LogMel, stft


def an_utterance(word="ia", repetition=0) -> synth.Utterance:
    return synth.utterance(word, synth.speaker(3, 0), repetition, (35.0, 55.0), 0)


def test_rendering_is_a_function_of_the_utterance():
    np.testing.assert_array_equal(synth.render(an_utterance()), synth.render(an_utterance()))
    assert not np.array_equal(
        synth.render(an_utterance()), synth.render(an_utterance(repetition=1))
    )


def test_ten_words_of_two_vowels():
    assert len(set(synth.WORDS)) == 10


def test_level_and_noise_are_as_stated():
    what = an_utterance()
    voice = synth.render(what, noise=False)
    assert 20 * np.log10(np.abs(voice).max()) == pytest.approx(what.gain_db, abs=1e-3)
    hiss = synth.render(what).astype(float) - voice
    assert 10 * np.log10(np.mean(hiss**2)) == pytest.approx(what.gain_db - what.snr_db, abs=0.1)


def test_silent_outside_the_voiced_span():
    what = an_utterance()
    times_s = np.arange(8000) / 8000
    outside = (times_s < what.onset_s) | (times_s > what.onset_s + what.duration_s)
    assert not synth.render(what, noise=False)[outside].any()


@pytest.mark.parametrize("word", synth.WORDS)
def test_mask_lies_on_the_formants(word):
    """Energy per bin inside the mask exceeds that outside it, in voiced frames."""
    what = an_utterance(word)
    mel = LogMel(8000, 512, 125, 64, 64, 50.0, 4000.0)
    mask = mask_from_tracks(synth.cue_tracks(what), mel.frequencies_hz, mel.times_s)
    assert 0.05 < mask.mean() < 0.3
    unit = mel(torch.from_numpy(synth.render(what))[None])[0, 0].numpy()
    voiced = mask.any(0)
    assert unit[:, voiced][mask[:, voiced]].mean() > unit[:, voiced][~mask[:, voiced]].mean() + 0.05


def test_switching_a_formant_off_changes_nothing_but_its_region():
    what = an_utterance("ia")
    full, without = (synth.render(what, switched, noise=False) for switched in ((), ("F2",)))
    power = [
        stft(torch.from_numpy(wave)[None], 512, 125)[0].abs().square().numpy()
        for wave in (full, without)
    ]
    ratio_db = 10 * np.log10((power[1] + 1e-9) / (power[0] + 1e-9))
    times_s, bins_hz = np.arange(65) * 125 / 8000, np.linspace(0, 4000, 257)
    track = synth.cue_tracks(what)
    mask = mask_from_tracks(track[track["component"] == "F2"], bins_hz, times_s)
    loud = power[0] > 1e-5 * power[0].max()
    assert np.median(ratio_db[mask & loud]) < -10
    low = loud & (bins_hz[:, None] < 600)
    assert np.abs(np.median(ratio_db[low])) < 2


def test_speakers_differ_and_stay_in_range():
    speakers = [synth.speaker(index, 0) for index in range(30)]
    assert len({who.formant_scale for who in speakers}) == 30
    assert all(0.88 <= who.formant_scale <= 1.15 and 95 <= who.f0_hz <= 220 for who in speakers)


def test_only_the_first_two_formants_depend_on_the_word():
    times_s = np.linspace(0, 1, 50)
    tracks = [synth.formants_hz(an_utterance(word), times_s) for word in synth.WORDS]
    third = an_utterance().speaker.formant_scale * synth.F3_HZ
    assert all(np.allclose(track[2], third) for track in tracks)
    assert len({track[:2].tobytes() for track in tracks}) == len(synth.WORDS)
