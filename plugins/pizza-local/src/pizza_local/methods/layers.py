# SPDX-License-Identifier: Apache-2.0
"""The three basic gradient methods at a layer inside the model instead of at its embeddings."""

from __future__ import annotations

from typing import Any

from pizza_local.methods.input_x_gradient import InputXGradient
from pizza_local.methods.integrated_gradients import IntegratedGradients
from pizza_local.methods.saliency import Saliency


class LayerSaliency(Saliency):
    """`Saliency` of what leaves a block.

    Args:
        layer: k = what leaves block k; -1 (the default) = the last block; 0 = the embeddings.
        **options: As for `Saliency`.
    """

    def __init__(self, layer: int = -1, **options: Any) -> None:
        super().__init__(layer=layer, **options)


class LayerInputXGradient(InputXGradient):
    """Activation x gradient of what leaves a block.

    Args:
        layer: As for `LayerSaliency`, but by default what enters the last block (-2): most models
            normalise what leaves it, and the output does not change when the input of a norm is
            scaled, so activation x gradient is 0 there.
        **options: As for `InputXGradient`.
    """

    def __init__(self, layer: int = -2, **options: Any) -> None:
        super().__init__(layer=layer, **options)


class LayerIntegratedGradients(IntegratedGradients):
    """`IntegratedGradients` between what leaves a block with the baseline and with the prompt.

    The path is straight between the two activations, at all positions; what the positions of the
    output's own tokens contribute is in ``sum_outside_units``.

    Args:
        layer: As for `LayerSaliency`.
        **options: As for `IntegratedGradients`.
    """

    def __init__(self, layer: int = -1, **options: Any) -> None:
        super().__init__(layer=layer, **options)
