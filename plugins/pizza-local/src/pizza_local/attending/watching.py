# SPDX-License-Identifier: Apache-2.0
"""Attention weights of one input, layer by layer, so that no more than one layer's are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from pizza_local.attending.replaced import (
    Attended,
    Call,
    Role,
    UnknownAttentionError,
    attending,
)
from pizza_local.counts import Counts
from pizza_local.subjects import Subject

Keep = Callable[[Role, Tensor], None]
"""Takes the weights ``(heads, q, k)`` of one layer."""


class _Watcher:
    """Attends as the model does and shows the weights."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self.seen = 0

    def attend(self, call: Call) -> Attended:
        output, weights = call.run()
        self.seen += 1
        self._keep(call.role, weights[0])
        return output, weights


def watch(subject: Subject, counts: Counts, keep: Keep) -> None:
    """Run an input through its model once and show the weights of its attention.

    Args:
        subject: The input.
        counts: Where passes are counted.
        keep: Is given each attention's weights in the order in which the layers run.

    Raises:
        UnknownAttentionError: The model does not give its weights.

    Cost: one forward; two for models that do not use transformers' attention interface (and keep
    the weights of all layers until the end).
    """
    points = subject.start().unsqueeze(0)
    watcher = _Watcher(keep)
    with torch.no_grad(), attending(subject.network.model, watcher):
        counts.forward(subject.length)
        subject.call(points)
    if watcher.seen:
        return
    who = subject.network.name
    with torch.no_grad():
        counts.forward(subject.length)
        output = subject.call(points, output_attentions=True)
    for role, weights in _told(output):
        if weights is None or weights.ndim != 4 or weights.shape[0] != 1:
            raise UnknownAttentionError(
                f"{who} does not give its attention weights. Open it with "
                "attn_implementation='eager', if it has one.",
                who,
            )
        keep(role, weights[0])


def _told(output: Any) -> Iterator[tuple[Role, Any]]:
    """What a model reports by itself, in the order of its layers; something, in any case."""
    if getattr(output, "cross_attentions", None):
        encoder = output.encoder_attentions or (None,)
        yield from (("input", weights) for weights in encoder)
        decoder = output.decoder_attentions or (None,)
        for own, cross in zip(decoder, output.cross_attentions, strict=True):
            yield "output", own
            yield "cross", cross
    else:
        attentions = getattr(output, "attentions", None) or (None,)
        yield from (("input", weights) for weights in attentions)
