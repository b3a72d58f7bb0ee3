# SPDX-License-Identifier: Apache-2.0
"""Many points, made a few at a time, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from pizza_local.view import View

_BYTES = 64 << 20
"""Points that are held at once."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """Gradients of some of the points.

    Attributes:
        indices: Which points they are.
        points: ``(b, n_tokens, d)``.
        gradients: ``(b, r, n_tokens, d)``.
    """

    indices: range
    points: Tensor
    gradients: Tensor


def blocks(like: Tensor, n_points: int) -> Iterator[range]:
    """``range(n_points)`` in pieces whose points ``(n_tokens, d)`` fit in 64 MiB together."""
    size = max(1, _BYTES // max(1, like.numel() * like.element_size()))
    for start in range(0, n_points, size):
        yield range(start, min(start + size, n_points))


def gradients_at(
    view: View, n_points: int, like: Tensor, make: Callable[[range], Tensor]
) -> Iterator[Piece]:
    """Gradients at points that are made when they are needed.

    Args:
        view: What is differentiated.
        n_points: How many points there are.
        like: One point ``(n_tokens, d)``.
        make: The points ``(b, n_tokens, d)`` of a range of indices; called in order, once each.
    """
    for block in blocks(like, n_points):
        view.check()
        points = make(block)
        for chunk, _, gradients in view.gradients(points):
            yield Piece(indices=block[chunk], points=points[chunk], gradients=gradients)
