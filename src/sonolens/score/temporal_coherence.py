"""Temporal coherence: whether a map is alike in neighbouring frames, as sound mostly is.

Pearson's r of the map without its last frame and the map without its first.
"""

from __future__ import annotations

from torch import Tensor

from sonolens.score.contract import Context, ScoreError, Scores, flat_map
from sonolens.score.similarity import pearson


def score(attributions: Tensor, context: Context) -> Scores:
    """Correlation of each map with itself one frame later.

    Parameters
    ----------
    attributions, shape=(batch, [channel,] freq, time)
        Signed maps; channels are summed.
    context
        Needs `inputs` whose last axis is time.

    Returns
    -------
    Scores, in [-1, 1]
        NaN for a constant map.

    Raises
    ------
    ScoreError
        A map on other axes than the input, or a single frame.
    """
    n_frames = context.inputs.shape[-1]
    if n_frames < 2:
        raise ScoreError(f"temporal_coherence: {n_frames} frame, need at least 2")
    maps = flat_map(attributions, context.inputs).view(len(attributions), -1, n_frames)
    return Scores(pearson(maps[..., :-1].flatten(1), maps[..., 1:].flatten(1)).cpu())
