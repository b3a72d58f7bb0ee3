# SPDX-License-Identifier: Apache-2.0
"""Attention rollout (Abnar and Zuidema 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pizza_local.attending.places import complete, readers
from pizza_local.attending.replaced import Role
from pizza_local.attending.rows import LookingMethod
from pizza_local.attending.watching import watch
from pizza_local.subjects import EncoderDecoderSubject, Subject
from pizza_local.view import View


class AttentionRollout(LookingMethod):
    """How much of each input token reaches the position that predicts an output token.

    With ``A'_l = rownorm(mean_h A_l + I)`` (the identity stands for the residual connection), the
    scores are the row of the predicting position in ``A'_L ... A'_1``. They sum to 1.

    In an encoder-decoder the same rule goes on through the decoder: each cross-attention, too, is
    averaged with its residual, and what it takes from encoder position j is row j of the encoder's
    rollout. What then came from the decoder's own tokens is not shown, so scores sum to less
    than 1. (The paper has encoders only.)

    Args:
        **options: As for `LookingMethod`.

    Source: Abnar and Zuidema 2020, arXiv:2005.00928, section 3: the product of
    ``A = 0.5 W_att + 0.5 I``.
    """

    explains = "attention"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    def weights(self, view: View, subject: Subject) -> tuple[Tensor, Mapping[str, Any]]:
        """See `LookingMethod.weights`."""
        at = readers(subject)
        rollout = _Rollout()
        watch(subject, view.counts, rollout.keep)
        complete(subject, rollout.n_layers, "attention rollout")
        split = isinstance(subject, EncoderDecoderSubject)
        whole = rollout.of_output if split else rollout.of_input
        assert whole is not None  # noqa: S101 - `watch` has shown a layer, or raised
        return whole[at.to(whole.device)], {"n_layers": rollout.n_layers}


class _Rollout:
    """The product so far.

    Attributes:
        of_input: Share of the input's tokens in its positions, ``(n, n)``.
        of_output: Share of the input's tokens in the decoder's positions, ``(m, n)``.
        n_layers: Layers of ``of_input``.
    """

    def __init__(self) -> None:
        self.of_input: Tensor | None = None
        self.of_output: Tensor | None = None
        self.n_layers = 0

    def keep(self, role: Role, weights: Tensor) -> None:
        """Multiply one layer's weights ``(heads, q, k)`` in."""
        weights = weights if weights.dtype == torch.float64 else weights.float()
        mean = weights.mean(0)
        if role == "input":
            self.n_layers += 1
            self.of_input = _with_residual(mean, self.of_input)
        elif role == "output":
            self.of_output = (
                self.of_output if self.of_output is None else (_with_residual(mean, self.of_output))
            )
        else:
            self._cross(mean)

    def _cross(self, mean: Tensor) -> None:
        assert self.of_input is not None  # noqa: S101 - the encoder ran first
        taken = mean @ self.of_input.to(mean.device)
        own = torch.zeros_like(taken) if self.of_output is None else self.of_output.to(taken.device)
        self.of_output = (taken + own) / (mean.sum(-1, keepdim=True) + 1)


def _with_residual(mean: Tensor, so_far: Tensor | None) -> Tensor:
    """One more layer's ``rownorm(A + I)`` on the left."""
    layer = mean + torch.eye(len(mean), device=mean.device, dtype=mean.dtype)
    layer = layer / layer.sum(-1, keepdim=True)
    return layer if so_far is None else layer @ so_far.to(layer.device)
