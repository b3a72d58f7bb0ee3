# SPDX-License-Identifier: Apache-2.0
"""Value zeroing (Mohebbi, Zuidema, Chrupala and Alishahi 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pizza.errors import ConfigError
from pizza_local.attending.places import readers
from pizza_local.attending.replaced import UnknownAttentionError
from pizza_local.attending.rows import LookingMethod
from pizza_local.attending.zeroing import changes
from pizza_local.subjects import EncoderDecoderSubject, Subject
from pizza_local.view import View

Combine = Literal["mean", "rollout"]


class ValueZeroing(LookingMethod):
    """How much a layer's state at the predicting position changes without a token's value vector.

    For every layer and token j the block is computed again from its own (clean) input with
    ``V_j = 0`` in all heads: ``C_ij = 1 - cos(h_i, h_i without j)``, each row divided by its sum.
    Unlike attention weights, that sees the size of the values, the residual connection and the
    feed-forward layer. The last layer's states are those after the model's final norm. In an
    encoder-decoder the decoder's cross-attention loses its values, and what the encoder mixes
    before is left as it is.

    Args:
        combine: ``"mean"``: of the layers. ``"rollout"``: the product ``C_L ... C_1``, as a token's
            way through all layers; no identity is added, since C has the residual in it. Not for
            encoder-decoders.
        **options: As for `LookingMethod`.

    Raises:
        ConfigError: An option has a value that means nothing.

    Source: Mohebbi et al. 2023, arXiv:2301.12971 (EACL 2023), section 3; its rollout is that of
    Abnar and Zuidema 2020, arXiv:2005.00928.
    """

    explains = "value-zeroing"

    def __init__(self, combine: Combine = "mean", **options: Any) -> None:
        super().__init__(**options)
        if combine not in get_args(Combine):
            raise ConfigError(f"layers are combined by 'mean' or 'rollout', not {combine!r}.")
        self.combine: Combine = combine

    def weights(self, view: View, subject: Subject) -> tuple[Tensor, Mapping[str, Any]]:
        """See `LookingMethod.weights`.

        Raises:
            CapabilityError: The model's attention cannot be changed.
        """
        at = readers(subject)
        if self.combine == "mean":
            layers = _normalised(changes(view, subject, at))
            return layers.mean(0), self._details(layers)
        if isinstance(subject, EncoderDecoderSubject):
            who = subject.network.name
            raise UnknownAttentionError(
                f"{who} has an encoder and a decoder, whose layers have no product: use "
                "combine='mean'.",
                who,
            )
        every = torch.arange(len(subject.tokens), device=at.device)
        layers = _normalised(changes(view, subject, every))
        whole = layers[0]
        for layer in layers[1:]:
            whole = layer @ whole
        return whole[at.to(whole.device)], self._details(layers)

    def _details(self, layers: Tensor) -> dict[str, Any]:
        return {"combine": self.combine, "n_layers": len(layers)}


def _normalised(rows: Tensor) -> Tensor:
    """Rows ``(..., n)`` divided by their sums; rows of zeros stay."""
    total = rows.sum(-1, keepdim=True)
    return rows / torch.where(total > 0, total, 1.0)
