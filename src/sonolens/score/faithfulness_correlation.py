"""Faithfulness correlation: larger attribution, larger drop when its cells are removed.

For r = 1..R a coalition S of cells is replaced by the fill, delta_r = F(x) - F(x with S filled) and
sigma_r = sum of the attribution over S; the score is Pearson's r of sigma and delta. Coalitions are
groups of patches (`patch`: sound is made of regions, not of single cells) or scattered single cells
(`scattered`, the definition). Coalitions and drops do not depend on the attribution: they are
computed once and shared by all methods.

References
----------
Bhatt, U., Weller, A., Moura, J. M. F. (2020). Evaluating and aggregating feature-based model
explanations. IJCAI, equation 1.
"""

from __future__ import annotations

from torch import Tensor

from sonolens.score import coalitions
from sonolens.score.compat import Compat, as_quantus, scaled
from sonolens.score.contract import Context, ScoreError, Scores, flat_map
from sonolens.score.similarity import pearson


def score(
    attributions: Tensor,
    context: Context,
    *,
    mode: coalitions.Mode = "patch",
    n_coalitions: int = 100,
    n_patches: int = 8,
    subset_size: int = 8,
    batch_size: int = 64,
    compat: Compat = None,
    legacy_seed: int | None = None,
) -> Scores:
    """Faithfulness correlation of each item.

    Parameters
    ----------
    attributions, shape=(batch, [channel,] freq, time)
        Signed maps; channels are summed.
    context
        Needs `predict`, `edit`, `fill`, `item_seeds`.
    mode
        What a coalition is made of: patches of a grid, or single cells.
    n_coalitions
        R, at least 3.
    n_patches
        The grid has n_patches x n_patches patches (fewer where the map is smaller), mode ``patch``.
    subset_size
        Patches or cells in a coalition, at most half of all.
    batch_size
        Inputs per call of the model.
    compat
        ``quantus``: exactly `subset_size` scattered cells become the smallest value of the item.
    legacy_seed
        Of the draws with `compat`, see `compat.legacy_generator`.

    Returns
    -------
    Scores, in [-1, 1]
        NaN when the sums or the drops are constant.

    Raises
    ------
    ScoreError
        The map does not live on the input's axes, fewer than 3 coalitions, or `compat` with
        patches, without a seed, or with as many cells as the input has.
    """
    if n_coalitions < 3:
        raise ScoreError(f"n_coalitions: found {n_coalitions}, need at least 3 for a correlation")
    if as_quantus(compat, f"faithfulness_{mode}"):
        return Scores(
            _quantus(
                attributions, context, mode, n_coalitions, subset_size, batch_size, legacy_seed
            )
        )
    maps = flat_map(attributions, context.inputs).cpu()
    drawn = coalitions.draw(context, mode, n_coalitions, n_patches, subset_size, batch_size)
    return Scores(pearson(drawn.sums(maps), drawn.drops))


def _quantus(
    attributions: Tensor,
    context: Context,
    mode: coalitions.Mode,
    n_coalitions: int,
    subset_size: int,
    batch_size: int,
    seed: int | None,
) -> Tensor:
    if mode != "scattered" or subset_size >= context.inputs[0].numel():
        raise ScoreError(
            f"faithfulness_{mode}: compat quantus removes scattered cells, fewer than the input "
            f"has; found {subset_size} of {context.inputs[0].numel()}"
        )
    drawn = coalitions.draw_quantus(context, n_coalitions, subset_size, batch_size, seed)
    maps = scaled(attributions).expand(context.inputs.shape).flatten(1)
    return pearson(drawn.sums(maps), drawn.drops)
