# SPDX-License-Identifier: Apache-2.0
"""Saliency: how much the output reacts to small changes of a token (Simonyan et al. 2014)."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pizza.errors import ConfigError
from pizza_local.methods.base import LocalMethod, TokenScores, at_the_prompt, cancelled
from pizza_local.units import Aggregation
from pizza_local.view import View

Norm = Literal["l1", "l2", "max", "sum"]

# The unit's score is then the same norm of the gradient of all its tokens together.
UNIT_AGGREGATION: dict[str, Aggregation] = {"l1": "sum", "l2": "norm", "max": "max", "sum": "sum"}


class Saliency(LocalMethod):
    """A norm of the gradient with respect to a token's embedding.

    Norms say how strongly the output reacts, not in which direction: they are never negative.
    ``"sum"`` keeps the sign, ``sum_d df/de_d``.

    Args:
        norm: ``"l2"`` (the default), ``"l1"``, ``"max"`` (largest absolute value) or ``"sum"``.
        **options: As for `LocalMethod`. By default units get the same norm of the gradient of all
            their tokens.

    Source: Simonyan, Vedaldi and Zisserman 2014, arXiv:1312.6034, section 3; norms per token as in
    Li et al. 2016, arXiv:1506.01066.
    """

    def __init__(self, norm: Norm = "l2", **options: Any) -> None:
        if norm not in get_args(Norm):
            raise ConfigError(f"the norm of saliency is {', '.join(get_args(Norm))}, not {norm!r}.")
        options["aggregation"] = options.get("aggregation") or UNIT_AGGREGATION[norm]
        super().__init__(**options)
        self.norm: Norm = norm
        self.signed = norm == "sum"

    def attribute(self, view: View) -> TokenScores:
        """See `LocalMethod.attribute`."""
        ((_, _, gradients),) = view.gradients(view.start().unsqueeze(0))
        rows = reduced(gradients[0], self.norm)
        warnings = at_the_prompt(view)
        if self.norm == "sum" and not warnings:
            warnings = cancelled(rows, gradients[0])
        return TokenScores(rows=rows, details={"norm": self.norm}, warnings=warnings)


def reduced(gradients: Tensor, norm: Norm) -> Tensor:
    """Gradients ``(..., d)`` to one number each."""
    if norm == "l1":
        return gradients.abs().sum(-1)
    if norm == "l2":
        lengths: Tensor = torch.linalg.vector_norm(gradients, dim=-1)
        return lengths
    return gradients.abs().amax(-1) if norm == "max" else gradients.sum(-1)
