# SPDX-License-Identifier: Apache-2.0
"""Gradients of any model: one forward, its graph retained for one backward per output position.

Parameters are frozen meanwhile, so that no pass computes gradients for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pizza_local.chunks import Chunks, check

if TYPE_CHECKING:
    from pizza_local.gradients.problem import Problem
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
        self, subject: Subject, problem: Problem
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Gradients with respect to points.

        Args:
            subject: The function of the points.
            problem: The points, and what is differentiated there.

        Yields:
            ``(slice of points, values (b', n), gradients (b', r, n_positions, d))`` with r = n or
            1, in the order of the points.

        Cost: one forward and, per chunk, n backwards or one.
        """
        n, counts = len(subject.targets), problem.counts
        points, function = problem.points, problem.function

        def work(chunk: slice) -> tuple[Tensor, Tensor]:
            leaf = points[chunk].detach().clone().requires_grad_(True)
            with frozen(subject.network.model), torch.enable_grad():
                each = function.each(subject.logits(leaf, problem.layer))
                counts.forward(len(leaf) * subject.length)
                if problem.level == "sequence":
                    seeds = [(each, function.weights(each))]
                else:
                    seeds = [
                        (each[:, t], torch.ones_like(each[:, t])) for t in range(each.shape[1])
                    ]
                rows = []
                for number, (value, seed) in enumerate(seeds):
                    check(problem.stop)
                    (row,) = torch.autograd.grad(
                        value, leaf, seed.detach(), retain_graph=number + 1 < len(seeds)
                    )
                    counts.backward(len(leaf) * subject.length)
                    rows.append(row)
            return each.detach(), torch.stack(rows, dim=1)

        most = max(1, min(_MOST, _POSITIONS // subject.length))
        rows = n if problem.level == "token" else 1
        size = points[0].numel() * points.element_size()
        # What a graph keeps per position is some thirty times the width, per layer.
        each_bytes = size * (30 * max(1, subject.n_layers) + 2 * rows)
        key = ("retained", problem.level, subject.length)
        yield from (
            (chunk, values, gradients)
            for chunk, (values, gradients) in self._chunks.run(
                key, len(points), each_bytes, most, work, problem.stop
            )
        )

    def values(self, subject: Subject, problem: Problem) -> Tensor:
        """Values ``(b, n)`` of the points, without gradients."""
        points = problem.points

        def work(chunk: slice) -> Tensor:
            with torch.no_grad():
                problem.counts.forward((chunk.stop - chunk.start) * subject.length)
                return problem.function.each(subject.logits(points[chunk], problem.layer))

        most = max(1, min(_MOST, _POSITIONS // subject.length))
        each_bytes = 40 * points[0].numel() * points.element_size()
        key = ("values", subject.length)
        done = self._chunks.run(key, len(points), each_bytes, most, work, problem.stop)
        return torch.cat([values for _, values in done])
