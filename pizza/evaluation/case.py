# SPDX-License-Identifier: Apache-2.0
"""What a measure may know of the attribution, and the coalitions that measures share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pizza import coalition

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_POINTS = 20
MOST_ORDERS = 10
"""No figure gains from a finer curve or more random orders."""

_LISTED = 12
"""Up to so many units all coalitions are listed and drawn from; above, repeats are thrown away."""
_BLOCK = 64
_FRUITLESS = 50
"""Blocks without a new coalition after which there are none worth waiting for."""
_SHUFFLES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much a budget allows.

    Attributes:
        points: Points of a curve.
        orders: Random orders that a ranking is held against.
        held_out: Coalitions that the attribution did not use.
    """

    points: int
    orders: int
    held_out: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """The attribution to evaluate, as far as it concerns measures.

    Attributes:
        scores: ``(n_units,)`` of one row of the attribution; NaN = the unit has no score.
        used: Keys (`coalition.key`) of the coalitions that the attribution was made from.
        seed: Of everything random.
        scale: What a value counts: ``"nats"``, ``"probability"``, or the metric's name.
        n_tokens: Output tokens that a value sums over; 1 where it is no sum over tokens.
        log_probability: ``ln p(output | whole prompt)`` where values are differences from it;
            else ``None``.
    """

    scores: Floats
    used: frozenset[bytes] = frozenset()
    seed: int = 0
    scale: str = ""
    n_tokens: int = 1
    log_probability: float | None = None

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.scores)

    @property
    def filled(self) -> Floats:
        """The scores, with 0 for units that have none: nothing is said of them."""
        return np.nan_to_num(self.scores, nan=0.0)

    @property
    def order(self) -> Ints:
        """Units in decreasing score; equal ones in the prompt's order, units without one last."""
        return np.argsort(-np.nan_to_num(self.scores, nan=-np.inf), kind="stable")

    def random_orders(self, count: int) -> list[Ints]:
        """Random orders of the units; fewer are the first of more, for every measure the same."""
        rng = np.random.default_rng([self.seed, 1])
        return [rng.permutation(self.n_units) for _ in range(count)]

    def shuffled(self) -> Floats:
        """The same scores given to units at random, ``(_SHUFFLES, n_units)``."""
        rng = np.random.default_rng([self.seed, 2])
        return rng.permuted(np.tile(self.filled, (_SHUFFLES, 1)), axis=1)

    def held_out(self, count: int, p: float) -> Bools:
        """Random coalitions that the attribution did not use; never the full one, none twice.

        Each unit is present with probability ``p``. Fewer are the first of more.

        Returns:
            ``(count, n_units)``, or as many as there are.
        """
        rng = np.random.default_rng([self.seed, 3])
        taken = {*self.used, coalition.key(np.ones(self.n_units, dtype=bool))}
        found: list[Bools] = []
        stream = self._listed(rng, p) if self.n_units <= _LISTED else self._drawn(rng, p)
        fruitless = 0
        while len(found) < count and fruitless < _FRUITLESS * _BLOCK:
            row = next(stream, None)
            if row is None:
                break
            if (key := coalition.key(row)) in taken:
                fruitless += 1
                continue
            fruitless = 0
            taken.add(key)
            found.append(row)
        return np.array(found, dtype=bool).reshape(len(found), self.n_units)

    def _listed(self, rng: np.random.Generator, p: float) -> Iterator[Bools]:
        """All coalitions, drawn without replacement in proportion to their probabilities."""
        n = self.n_units
        rows = (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(bool)
        weights = np.where(rows, p, 1.0 - p).prod(axis=1)
        # Exponential waiting times: who comes first is drawn in proportion to its rate
        # (Efraimidis & Spirakis 2006).
        yield from rows[np.argsort(rng.exponential(size=len(rows)) / weights, kind="stable")]

    def _drawn(self, rng: np.random.Generator, p: float) -> Iterator[Bools]:
        while True:
            yield from rng.random((_BLOCK, self.n_units)) < p
