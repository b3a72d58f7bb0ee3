# SPDX-License-Identifier: Apache-2.0
"""Which cotangents exist: one per target and position that the target can see, packed.

In a causal model nothing after a target's own position matters to it. So the stack of cotangents
is a rectangle (every target at every position up to the first target's) and a staircase; only
these rows are stored, and every linear map of the network works on all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

PerPosition = Callable[[Tensor], Tensor]


class Rows:
    """The packed order of the cotangents of one chunk.

    Position-major: ``(position, point, target)``, first the rectangle, then the staircase. What
    belongs to positions (statistics, activations) has rows ``(position, point)``.

    Args:
        ends: Last position of each target, ascending.
        n_points: Points in the chunk.
        device: Where the cotangents are.
    """

    def __init__(self, ends: Sequence[int], n_points: int, device: torch.device) -> None:
        self.n_points = n_points
        self.n_targets = len(ends)
        self.length = ends[-1] + 1
        self._common = ends[0] + 1
        self._rectangle = self._common * n_points * self.n_targets
        self._stairs: tuple[Tensor, Tensor, Tensor] | None = None
        self.total = self._rectangle
        if self.length > self._common:
            places = torch.arange(self._common, self.length)
            seen = torch.tensor(ends) >= places[:, None, None]
            index = seen.expand(-1, n_points, -1).nonzero().to(device)
            self.total += len(index)
            self._stairs = (index[:, 0], index[:, 1], index[:, 2])
            self._positions = (index[:, 0] + self._common) * n_points + index[:, 1]

    @staticmethod
    def count(ends: Sequence[int]) -> int:
        """Cotangents of one point."""
        return sum(end + 1 for end in ends)

    def parts(self, *packed: Tensor) -> Iterator[tuple[PerPosition, list[Tensor]]]:
        """Rectangle and staircase of packed tensors, as views, and how to line up with them.

        Yields:
            ``(per_position, views)``: the views have shape ``[places, targets, ...]``;
            ``per_position`` takes a tensor with one row per ``(position, point)`` to the places,
            ``[places, ...]``.
        """
        head = self._common * self.n_points

        def first(values: Tensor) -> Tensor:
            return values[:head]

        def later(values: Tensor) -> Tensor:
            return values.index_select(0, self._positions)

        yield (
            first,
            [torch.unflatten(x[: self._rectangle], 0, (head, self.n_targets)) for x in packed],
        )
        if self._stairs is not None:
            yield later, [x[self._rectangle :].unsqueeze(1) for x in packed]

    def unpack(self, packed: Tensor, dense: Tensor) -> Tensor:
        """Write packed rows into ``dense``, with zeros where there is no row.

        Args:
            packed: ``[total, ...]``.
            dense: ``[length, points, targets, ...]``, any strides; what it held is lost.
        """
        shape = (self._common, self.n_points, self.n_targets)
        dense[: self._common].copy_(torch.unflatten(packed[: self._rectangle], 0, shape))
        if self._stairs is not None:
            later = dense[self._common :].zero_()
            later.index_put_(self._stairs, packed[self._rectangle :])
        return dense

    def pack(self, dense: Tensor, packed: Tensor) -> Tensor:
        """The opposite of `unpack`; what ``dense`` holds where there is no row is dropped."""
        shape = (self._common, self.n_points, self.n_targets)
        torch.unflatten(packed[: self._rectangle], 0, shape).copy_(dense[: self._common])
        if self._stairs is not None:
            packed[self._rectangle :] = dense[self._common : self.length][self._stairs]
        return packed

    def find(self, positions: Tensor, targets: Tensor) -> Tensor:
        """Packed rows of pairs of position and target, for all points.

        Args:
            positions: ``[n]``.
            targets: ``[n]``, each of which sees its position.

        Returns:
            ``[n * points]``, in the order ``(pair, point)``.
        """
        places = torch.full(
            (self.length, self.n_points, self.n_targets), -1, device=positions.device
        )
        self.unpack(torch.arange(self.total, device=positions.device), places)
        return places[positions, :, targets].flatten()
