"""What the model makes of the sound that a map keeps: five scores of one resynthesis.

With p the probability of the class for the recording, o for the sound that the map keeps and r for
what it leaves over (`Context.resynthesise`; both pass the whole front end again):
average increase 100 [o > p], average drop 100 max(0, p - o) / p, average gain
100 max(0, o - p) / (1 - p), faithfulness p - r, input fidelity [same class for recording and kept
sound]; their means over items are AI, AD, AG, FF and Fid-In.

References
----------
Chattopadhay, A. et al. (2018). Grad-CAM++. WACV, section 4.1 (AI, AD). Zhang, H. et al. (2024).
Opti-CAM. CVIU 248 (AG). Paissan, F., Ravanelli, M., Subakan, C. (2024). Listenable maps for audio
classifiers. ICML, section 4.1 (on sound; FF, Fid-In).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sonolens.score.contract import Context, Scores, positive

Quantity = Literal["increase", "drop", "gain", "faithfulness", "fidelity"]


def score(attributions: Tensor, context: Context, *, quantity: Quantity) -> Scores:
    """One of the five numbers for each item.

    Parameters
    ----------
    attributions, shape=(batch, freq, time) or (batch, channel, freq, time)
        Signed maps.
    context
        Needs `listen`, `analyse`, `probabilities`.
    quantity
        Which number.

    Returns
    -------
    Scores
        In percent for the first three, in [-1, 1] for faithfulness, 0 or 1 for fidelity. NaN where
        nothing in the map is positive.

    Raises
    ------
    ScoreError
        The target is no class, no way back to sound, or maps on other axes than the input.
    """
    probabilities, classes = context.classes(f"resynthesis {quantity}")

    def answers() -> tuple[Tensor, Tensor, Tensor]:
        kept, removed = context.resynthesise(attributions)
        return tuple(probabilities(x).double().cpu() for x in (context.inputs, kept, removed))  # type: ignore[return-value]

    recording, kept, removed = context.once("resynthesis", attributions, answers)
    p, o, r = (found.gather(1, classes[:, None])[:, 0] for found in (recording, kept, removed))
    if quantity == "increase":
        values = 100.0 * (o > p)
    elif quantity == "drop":
        values = torch.where(o < p, 100 * (p - o) / p, 0.0)
    elif quantity == "gain":
        values = torch.where(o > p, 100 * (o - p) / (1 - p), 0.0)
    elif quantity == "faithfulness":
        values = p - r
    else:
        values = recording.argmax(1) == kept.argmax(1)
    heard = positive(attributions, context).any(1)
    return Scores(torch.where(heard, values.double(), torch.nan))
