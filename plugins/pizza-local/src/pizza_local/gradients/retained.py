# SPDX-License-Identifier: Apache-2.0
"""Gradients of any model: one forward, its graph retained for one backward per output position.

Parameters are frozen meanwhile, so that no pass computes gradients for them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from pizza_local.chunks import Chunks, check
from pizza_local.counts import Counts

if TYPE_CHECKING:
    from pizza_local.gradients.functions import Function
    from pizza_local.subjects import Subject

_MOST = 64
"""Points in one batch: more of them gain nothing."""

_POSITIONS = 2048
"""Positions in one batch that keep a processor busy."""


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No gradients for the parameters while this is open; afterwards as it was."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


class Retained:
    """The engine for every model.

    Args:
        chunks: Sizes of batches.
    """

    name = "retained"

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    def gradients(
        self,
        subject: Subject,
        points: Tensor,
        function: Function,
        *,
        level: Literal["token", "sequence"] = "token",
        layer: int = 0,
        counts: Counts,
        stop: threading.Event | None = None,
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Gradients with respect to points.

        Args:
            subject: The function of the points.
            points: ``(b, n_positions, d)`` at ``layer``.
            function: What is differentiated.
            level: ``"token"``: one gradient per output position. ``"sequence"``: one of the whole.
            layer: Where the points are.
            counts: Where passes are counted.
            stop: Set when the caller is gone.

        Yields:
            ``(slice of points, values (b', n), gradients (b', r, n_positions, d))`` with r = n or
            1, in the order of the points.

        Cost: one forward and, per chunk, n backwards or one.
        """
        n = len(subject.targets)

        def work(chunk: slice) -> tuple[Tensor, Tensor]:
            leaf = points[chunk].detach().clone().requires_grad_(True)
            with frozen(subject.network.model), torch.enable_grad():
                each = function.each(subject.logits(leaf, layer))
                counts.forward(len(leaf) * subject.length)
                if level == "sequence":
                    seeds = [(each, function.weights(each))]
                else:
                    seeds = [
                        (each[:, t], torch.ones_like(each[:, t])) for t in range(each.shape[1])
                    ]
                rows = []
                for number, (value, seed) in enumerate(seeds):
                    check(stop)
                    (row,) = torch.autograd.grad(
                        value, leaf, seed.detach(), retain_graph=number + 1 < len(seeds)
                    )
                    counts.backward(len(leaf) * subject.length)
                    rows.append(row)
            return each.detach(), torch.stack(rows, dim=1)

        most = max(1, min(_MOST, _POSITIONS // subject.length))
        rows = n if level == "token" else 1
        size = points[0].numel() * points.element_size()
        # What a graph keeps per position is some thirty times the width, per layer.
        each_bytes = size * (30 * max(1, subject.n_layers) + 2 * rows)
        key = ("retained", level, subject.length)
        yield from (
            (chunk, values, gradients)
            for chunk, (values, gradients) in self._chunks.run(
                key, len(points), each_bytes, most, work, stop
            )
        )

    def values(
        self,
        subject: Subject,
        points: Tensor,
        function: Function,
        *,
        layer: int = 0,
        counts: Counts,
        stop: threading.Event | None = None,
    ) -> Tensor:
        """Values ``(b, n)`` of points ``(b, n_positions, d)``, without gradients."""

        def work(chunk: slice) -> Tensor:
            with torch.no_grad():
                counts.forward((chunk.stop - chunk.start) * subject.length)
                return function.each(subject.logits(points[chunk], layer))

        most = max(1, min(_MOST, _POSITIONS // subject.length))
        each_bytes = 40 * points[0].numel() * points.element_size()
        key = ("values", subject.length)
        return torch.cat(
            [v for _, v in self._chunks.run(key, len(points), each_bytes, most, work, stop)]
        )
