"""Share of a map in the onset, the steady part or the decay of the sound.

The level is the mean of the input over frequency. Sound is where the level is above `floor_share`
of the way from its lowest to its highest frame; the onset ends at the first frame above
`top_share`, the decay begins after the last. A descriptive number: no share is better than another.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sonolens.score.contract import Context, Scores, positive

Segment = Literal["onset", "steady", "decay"]


def score(
    attributions: Tensor,
    context: Context,
    *,
    segment: Segment,
    floor_share: float = 0.1,
    top_share: float = 0.9,
) -> Scores:
    """Positive attribution in the segment over all positive attribution.

    Parameters
    ----------
    attributions, shape=(batch, [channel,] freq, time)
        Signed maps.
    context
        Needs `inputs` whose last axis is time.
    segment
        Which part of the sound.
    floor_share, top_share
        See above, 0 <= floor_share < top_share < 1.

    Returns
    -------
    Scores, in [0, 1]
        The shares of the three segments add up to 1 less the share outside the sound. NaN where
        nothing in the map is positive, or the level is constant.

    Raises
    ------
    ScoreError
        A map on other axes than the input.
    """
    inputs = context.inputs.double().cpu()
    frames = envelope_segments(inputs.flatten(1, -2).mean(1), floor_share, top_share)[segment]
    maps = positive(attributions, context).view(len(inputs), -1, inputs.shape[-1]).sum(1)
    total = maps.sum(1)
    known = frames.isfinite().all(1) & (total > 0)
    return Scores(torch.where(known, (maps * frames.nan_to_num()).sum(1) / total, torch.nan))


def envelope_segments(level: Tensor, floor_share: float, top_share: float) -> dict[Segment, Tensor]:
    """Frames of each segment, 0 or 1, from levels (batch, time); NaN where the level is constant.

    >>> level = torch.tensor([[0.0, 0.0, 0.5, 1.0, 1.0, 0.5, 0.0]])
    >>> {name: frames.nonzero()[:, 1].tolist() for name, frames in
    ...  envelope_segments(level, 0.1, 0.9).items()}
    {'onset': [2], 'steady': [3, 4], 'decay': [5]}
    """
    low, high = level.amin(1, keepdim=True), level.amax(1, keepdim=True)
    relative = (level - low) / (high - low)  # NaN where the level is constant
    frame = torch.arange(level.shape[1])
    sounding = relative > floor_share
    loud = relative > top_share
    first = torch.where(loud, frame, level.shape[1]).amin(1, keepdim=True)
    last = torch.where(loud, frame, -1).amax(1, keepdim=True)
    parts: dict[Segment, Tensor] = {
        "onset": sounding & (frame < first),
        "steady": (frame >= first) & (frame <= last),  # quiet gaps in it are part of it
        "decay": sounding & (frame > last),
    }
    known = torch.where(high > low, 1.0, torch.nan)
    return {name: part * known for name, part in parts.items()}
