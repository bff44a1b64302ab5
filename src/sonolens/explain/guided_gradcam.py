"""Guided Grad-CAM: what raises the target (Grad-CAM, coarse) times where from (guided backprop).

ReLU(sum_c mean(dF/da_c) a_c), enlarged to the input, times the gradient whose negative parts are
cut at every ReLU. Differs from captum's: the coarse map is enlarged bilinearly
(`interpolation="nearest"` gives captum's), and a model whose activations escape hooks or whose
layer is 1 x 1 is refused. All-zero maps are possible and are kept.

References
----------
Selvaraju, R. R. et al. (2017). Grad-CAM. ICCV, equations 1 and 2, section 3.2.
Springenberg, J. T. et al. (2015). Striving for simplicity: the all convolutional net. ICLR
workshop, section 3.4.
"""

from __future__ import annotations

from torch import Tensor, nn

from sonolens.explain.cam import Interpolation, choose_layer, coarse_map, enlarged
from sonolens.explain.contract import Attribution, Target, grouped
from sonolens.explain.guided_backprop import guided_backprop


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    layer: str | None = None,
    interpolation: Interpolation = "bilinear",
) -> Attribution:
    """Guided Grad-CAM.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; the model's activations are nn.ReLU modules, each called once.
    layer
        Name of the module whose output is the coarse map; None: the model's `gradcam_layer`.
    interpolation
        How the coarse map is enlarged.

    Returns
    -------
    Attribution
        values (batch, *shape), signed.

    Raises
    ------
    ExplainError
        No layer, or one without at least two cells along each axis; in-place, re-used or functional
        activations.
    """
    chosen = choose_layer(model, layer, "guided_gradcam")
    # guided backprop first: it says what is wrong with the model's activations
    fine = guided_backprop(model, inputs, target, "guided_gradcam")
    coarse = coarse_map(model, chosen, inputs, target)
    values = fine * enlarged(coarse, inputs, interpolation)
    return Attribution(grouped(values, segments), n_evaluations=2)
