# SPDX-License-Identifier: Apache-2.0
"""Partition SHAP: Owen values over the prompt's own hierarchy."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Method, Plan, Scores
from pizza.methods._designs.budget import check_samples, coalitions_to_spend
from pizza.methods._designs.enumeration import Coalitions, Floats
from pizza.methods._designs.given import finite

_DEFAULT = 500

_SPLITS_PER_ROUND = 8
"""Splits that are measured together at most: more keep a model busy, fewer are better chosen."""

_WORTH = 0.25
"""Part of the strongest node's strength that a node of the same round has at least."""


@dataclass(frozen=True, slots=True, eq=False)
class _Node:
    """Neighbouring units ``[start, stop)`` next to one set of other units.

    Attributes:
        start: First unit.
        stop: One after the last unit.
        context: The other units that are present, ``(n_units,)``.
        below: Values of the context alone, ``(n_columns,)``.
        above: Values of the context with these units; NaN in a column that stopped higher up.
        weight: Part of all orders in which the units join next to this context.
    """

    start: int
    stop: int
    context: Coalitions
    below: Floats
    above: Floats
    weight: float

    @property
    def share(self) -> Floats:
        return (self.above - self.below) * self.weight

    def with_units(self, start: int, stop: int) -> Coalitions:
        present = self.context.copy()
        present[start:stop] = True
        return present


class PartitionShap(Method):
    """Owen values over messages, paragraphs, sentences and halves of neighbours.

    A node of the hierarchy is cut in two where the coarsest boundary inside it is nearest its
    middle. Its halves l and r split ``v(context + node) - v(context)`` as two players do (Owen
    1977): each joins before and after the other with weight 1/2, and is then split itself in both
    contexts. Nodes with the largest ``|v(context + node) - v(context)| weight`` are split first
    (the order of shap's PartitionExplainer; Lundberg & Lee 2017 for the values), by the whole
    output. When the budget ends, what a node still holds is shared equally by its units, and so it
    is in a column where one of the halves has no defined value. The scores sum to
    ``v(all) - v(none)`` at any budget.

    Good when evidence stands together and the hierarchy is flat: a unit at depth d is next to 2^d
    contexts, so scattered evidence in a long prompt is found late.

    Args:
        samples: Coalitions to evaluate at most, the empty one included; at least 3. ``None``: what
            the budget allows, 500 without one.

    Cost: two calls a split, at most eight splits a round; about n_units^2 calls split everything.
    """

    def __init__(self, samples: int | None = None) -> None:
        self.samples = check_samples(samples)

    def calls(self, n_units: int) -> tuple[int, int]:
        """The first split at least; all coalitions at most."""
        most = 2**n_units - 1
        return min(3, most), most if self.samples is None else max(3, min(self.samples, most))

    def plan(self, game: Game) -> Plan:
        """One round for the empty coalition, then rounds of splits."""
        n = game.n_units
        left = coalitions_to_spend(
            game, self.samples, fewest=3, default=_DEFAULT, who="partition-shap"
        )
        nothing = np.zeros(n, dtype=bool)
        empty = finite((yield nothing[None]))[0]
        left -= 1
        root = _Node(0, n, nothing, empty, np.zeros_like(empty), 1.0)
        scores = np.zeros((game.n_columns, n))
        queue: _Queue = []
        pushed = splits = 0
        fresh = [root]
        while True:
            for node in fresh:
                if node.stop - node.start == 1:
                    _settle(scores, node)
                    continue
                pushed += 1
                heapq.heappush(queue, (-_strength(node), pushed, node))
            chosen = _best(queue, left // 2)
            count = len(chosen)
            if not count:
                break
            cuts = [_cut(game.groups, node.start, node.stop) for node in chosen]
            left -= 2 * count
            splits += count
            answers = yield np.array(
                [
                    node.with_units(*half)
                    for node, cut in zip(chosen, cuts, strict=True)
                    for half in ((node.start, cut), (cut, node.stop))
                ]
            )
            fresh, values = [], finite(answers)
            for node, cut, halves in zip(chosen, cuts, values.reshape(count, 2, -1), strict=True):
                fresh += _split(scores, node, cut, *halves)
        for _, _, node in queue:
            _settle(scores, node)
        scores[np.isnan(empty)] = np.nan
        return Scores(
            values=scores,
            details={
                "index": "owen",
                "samples": 1 + 2 * splits,
                "splits": splits,
                "unsplit": len(queue),
            },
        )


_Queue = list[tuple[float, int, _Node]]


def _best(queue: _Queue, most: int) -> list[_Node]:
    """Take the nodes that are split in this round, strongest first."""
    chosen: list[_Node] = []
    limit = queue[0][0] * _WORTH if queue else 0.0
    while queue and queue[0][0] <= limit and len(chosen) < min(most, _SPLITS_PER_ROUND):
        chosen.append(heapq.heappop(queue)[2])
    return chosen


def _strength(node: _Node) -> float:
    return float(np.nan_to_num(abs(node.share[0])))


def _cut(groups: NDArray[np.int64], start: int, stop: int) -> int:
    """Where a node is cut: the coarsest boundary inside it, of these the one nearest its middle."""
    middle = (start + stop) / 2
    for level in groups[start:stop].T:
        cuts = start + 1 + np.flatnonzero(np.diff(level))
        if cuts.size:
            return int(cuts[np.abs(cuts - middle).argmin()])
    return (start + stop) // 2


def _split(scores: Floats, node: _Node, cut: int, left: Floats, right: Floats) -> list[_Node]:
    """The two halves in both contexts, ``left`` and ``right`` being the values with one of them."""
    stuck = np.isnan(left) | np.isnan(right) | np.isnan(node.share)
    _settle(scores, node, stuck)
    left, right = np.where(stuck, np.nan, left), np.where(stuck, np.nan, right)
    a, b, half = node.start, node.stop, node.weight / 2
    return [
        _Node(a, cut, node.context, node.below, left, half),
        _Node(cut, b, node.context, node.below, right, half),
        _Node(a, cut, node.with_units(cut, b), right, node.above, half),
        _Node(cut, b, node.with_units(a, cut), left, node.above, half),
    ]


def _settle(scores: Floats, node: _Node, where: NDArray[np.bool_] | None = None) -> None:
    """Share what a node holds among its units (in some columns); NaN was shared higher up."""
    share = np.nan_to_num(node.share) / (node.stop - node.start)
    if where is not None:
        share = np.where(where, share, 0.0)
    scores[:, node.start : node.stop] += share[:, None]
