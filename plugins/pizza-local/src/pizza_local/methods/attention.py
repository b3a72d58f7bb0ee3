# SPDX-License-Identifier: Apache-2.0
"""Attention weights as scores (Bahdanau, Cho and Bengio 2015)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from pizza.errors import ConfigError
from pizza_local.attending.places import readers
from pizza_local.attending.replaced import Role
from pizza_local.attending.rows import LookingMethod
from pizza_local.attending.watching import watch
from pizza_local.subjects import EncoderDecoderSubject, Subject
from pizza_local.view import View


class Attention(LookingMethod):
    """How much the position that predicts an output token attends to each input token.

    The weights ``A[l, h, q, i]`` of layer l and head h from position q to token i, averaged over
    layers and heads. q is the position before the output token (decoders), the mask (models that
    fill masks), the position that the head reads (classifiers), or the decoder's position with its
    cross-attention to the encoder (encoder-decoders). Weights are not effects: a token can be
    looked at without changing anything (Jain and Wallace 2019, arXiv:1902.10186).

    Args:
        layers: ``"all"`` (their mean), an index, or several (their mean). 0 = the first layer,
            -1 = the last. The layers are the decoder's in an encoder-decoder.
        heads: ``"mean"``, ``"max"`` (the largest weight of any head) or the index of one.
        **options: As for `LookingMethod`.

    Raises:
        ConfigError: An option has a value that means nothing.

    Source: Bahdanau et al. 2015, arXiv:1409.0473, section 5.2.1; weights as in Vaswani et al. 2017,
    arXiv:1706.03762, equation 1.
    """

    explains = "attention"

    def __init__(
        self,
        layers: Literal["all"] | int | Sequence[int] = "all",
        heads: Literal["mean", "max"] | int = "mean",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.layers = _checked_layers(layers)
        if heads not in ("mean", "max") and not _is_index(heads):
            raise ConfigError(f"heads are 'mean', 'max' or the index of one, not {heads!r}.")
        self.heads = heads

    def weights(self, view: View, subject: Subject) -> tuple[Tensor, Mapping[str, Any]]:
        """See `LookingMethod.weights`."""
        at = readers(subject)
        wanted: Role = "cross" if isinstance(subject, EncoderDecoderSubject) else "input"
        rows: list[Tensor] = []

        def keep(role: Role, weights: Tensor) -> None:
            if role == wanted:
                rows.append(self._over_heads(weights[:, at.to(weights.device)]).cpu())

        watch(subject, view.counts, keep)
        chosen = range(len(rows)) if self.layers is None else self.layers
        for layer in chosen:
            if not -len(rows) <= layer < len(rows):
                raise ConfigError(
                    f"there is no layer {layer}: {subject.network.name} attends in the layers 0 to "
                    f"{len(rows) - 1}."
                )
        picked = [rows[layer] for layer in chosen]
        return torch.stack(picked).mean(0), {
            "layers": "all" if self.layers is None else list(self.layers),
            "heads": self.heads,
            "n_layers": len(rows),
        }

    def _over_heads(self, weights: Tensor) -> Tensor:
        """Weights ``(heads, q, k)`` to ``(q, k)``, in single precision at least."""
        weights = weights if weights.dtype == torch.float64 else weights.float()
        if self.heads == "mean":
            return weights.mean(0)
        if self.heads == "max":
            return weights.amax(0)
        index = int(self.heads)
        if not -len(weights) <= index < len(weights):
            raise ConfigError(f"there is no head {index}: there are 0 to {len(weights) - 1}.")
        return weights[index]


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _checked_layers(layers: Any) -> tuple[int, ...] | None:
    """Indices of layers; ``None`` = all of them."""
    if isinstance(layers, str) and layers == "all":
        return None
    if _is_index(layers):
        return (layers,)
    if isinstance(layers, Sequence) and layers and all(_is_index(one) for one in layers):
        return tuple(layers)
    raise ConfigError(f"layers are 'all', an index or a list of indices, not {layers!r}.")
