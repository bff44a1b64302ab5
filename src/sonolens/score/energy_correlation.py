"""Energy correlation: whether a map only copies how loud the input is. A control, not a merit.

Pearson's r of the map and the input over all cells; a constant baseline, such as silence, changes
nothing. The control `energy`, x - b, has 1.
"""

from __future__ import annotations

from torch import Tensor

from sonolens.score.contract import Context, Scores, flat_map
from sonolens.score.similarity import pearson


def score(attributions: Tensor, context: Context) -> Scores:
    """Correlation of each map with its input.

    Parameters
    ----------
    attributions, shape=(batch, [channel,] freq, time)
        Signed maps; channels are summed.
    context
        Needs `inputs`.

    Returns
    -------
    Scores, in [-1, 1]
        NaN for a constant map or input.

    Raises
    ------
    ScoreError
        A map on other axes than the input.
    """
    maps = flat_map(attributions, context.inputs)
    return Scores(pearson(maps, flat_map(context.inputs, context.inputs)).cpu())
