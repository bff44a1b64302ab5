"""The embedded pictures: 1,797 handwritten digits of 8 x 8 pixels that scikit-learn carries.

They are the test part of the UCI set, written by 13 persons. The file does not name the writers,
but its order tells the forms they filled in: every form begins with the digits 0 to 9 three times.
So `person_id` is the form; one of the 13 persons filled in more than one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from sonolens.data.corpora.contract import CorpusInfo, Picture

INFO = CorpusInfo(
    name="sklearn_digits",
    title="UCI handwritten digits in scikit-learn: 1,797 pictures, 8 x 8",
    licence="CC BY 4.0",
    bibtex=(
        "@misc{alpaydin1998, author={Alpaydin, E. and Kaynak, C.}, year={1998}, "
        "title={Optical Recognition of Handwritten Digits}, howpublished={UCI Machine Learning "
        "Repository}, doi={10.24432/C50P49}}"
    ),
    embedded=True,
    n_recordings=1797,
    modality="image",
)
MAX_LEVEL = 16
# What follows the third 9 of every form; a digit of it was lost in some.
_AFTER_COUNTING = re.compile(r"0955?650")
N_COUNTS = 3


def pictures() -> list[Picture]:
    """All pictures, sorted by picture_id (their number in the file)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    levels = np.asarray(bunch.images)
    labels = [int(label) for label in bunch.target]
    # 16 becomes 255: one scale for all corpora of pictures.
    pixels = np.rint(levels * (255 / MAX_LEVEL)).astype(np.uint8)
    forms = form_of(labels)
    return [
        Picture(
            picture_id=f"{number:04d}",
            person_id=f"form{forms[number]:02d}",
            session_id=f"form{forms[number]:02d}",
            corpus=INFO.name,
            label=str(label),
            class_index=label,
            path="",
            licence=INFO.licence,
            pixels=pixels[number],
        )
        for number, label in enumerate(labels)
    ]


def form_of(labels: Sequence[int]) -> np.ndarray:
    """Number of the form of every picture, in the order of the file, shape=(n,).

    A form begins where three ascending runs that end in 9 precede the digits 0, 9, 5 … of its text.
    """
    starts = []
    for match in _AFTER_COUNTING.finditer("".join(map(str, labels))):
        start = match.start()
        for _ in range(N_COUNTS):
            start -= 1  # the 9
            while start > 0 and labels[start - 1] < labels[start]:
                start -= 1
        starts.append(start)
    return np.searchsorted(starts, np.arange(len(labels)), side="right") - 1
