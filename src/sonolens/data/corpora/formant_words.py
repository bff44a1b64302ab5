"""The embedded corpus: ten synthetic words with exact truth masks."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from sonolens.data.audio import Audio
from sonolens.data.corpora.contract import CorpusInfo, Recording
from sonolens.data.synth import formant_words as synth

INFO = CorpusInfo(
    name="formant_words",
    title="Formant words: two-vowel words with known cues",
    licence="computed, no licence needed",
    bibtex=(
        "@article{klatt1980, author={Klatt, Dennis H.}, journal={JASA}, volume={67}, "
        "number={3}, pages={971--995}, title={Software for a cascade/parallel "
        "formant synthesizer}, year={1980}}"
    ),
    embedded=True,
)


def recordings(
    n_speakers: int, n_repetitions: int, snr_db: tuple[float, float], seed: int
) -> tuple[list[Recording], pd.DataFrame]:
    """All recordings, and the tracks of their cues with the column recording_id."""
    found, tracks = [], []
    for index in range(n_speakers):
        who = synth.speaker(index, seed)
        for class_index, word in enumerate(synth.WORDS):
            for repetition in range(n_repetitions):
                what = synth.utterance(word, who, repetition, snr_db, seed)
                name = f"{word}_{who.name}_{repetition}"
                found.append(
                    Recording(
                        recording_id=name,
                        person_id=who.name,
                        session_id=f"{who.name}_0",
                        corpus=INFO.name,
                        label=word,
                        class_index=class_index,
                        path="",
                        licence=INFO.licence,
                        read=partial(_read, what),
                        extra={
                            "f0_hz": round(who.f0_hz, 3),
                            "formant_scale": round(who.formant_scale, 4),
                        },
                    )
                )
                tracks.append(synth.cue_tracks(what).assign(recording_id=name))
    return found, pd.concat(tracks, ignore_index=True)


def _read(what: synth.Utterance) -> Audio:
    waveform = synth.render(what)
    return Audio(np.ascontiguousarray(waveform), synth.SAMPLE_RATE, synth.SAMPLE_RATE, 1)
