# SPDX-License-Identifier: Apache-2.0
"""Random coalitions, each at most once: what is asked twice says nothing new."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pizza import coalition
from pizza.methods._designs.enumeration import every

Bools = NDArray[np.bool_]

FEWEST = 8
"""With fewer coalitions there is nothing to leave out and predict."""

_LISTED = 14
"""Up to so many units all coalitions are listed and drawn from; above, repeats are thrown away."""

_BLOCK = 16
"""Coalitions drawn at once. Fixed, so that waves of any size draw the same ones."""


def usual(n_units: int) -> int:
    """Coalitions when nobody said how many: 10 per unit, 64 to 512."""
    return max(64, min(10 * n_units, 512))


def calls_of_halves(n_units: int, samples: int | None) -> tuple[int, int]:
    """What `Method.calls` answers for a method that asks for halves."""
    most = 2**n_units - 1
    if samples is not None:
        return min(samples, most), min(samples, most)
    return min(FEWEST, most), most


class Draws:
    """Draws coalitions that were not drawn before; never the full one.

    Each unit is present with probability 1/2, so every coalition is equally likely.
    """

    def __init__(self, n_units: int, rng: np.random.Generator) -> None:
        self.n_units = n_units
        self._rng = rng
        self._seen = {coalition.key(np.ones(n_units, dtype=bool))}
        self._stream = self._fresh()

    def _fresh(self) -> Iterator[Bools]:
        """Coalitions in random order, each once; ends when there are no more."""
        few = self.n_units <= _LISTED
        while True:
            rows = (
                self._rng.permutation(every(self.n_units))
                if few
                else self._rng.random((_BLOCK, self.n_units)) < 0.5
            )
            for row in rows:
                if (name := coalition.key(row)) not in self._seen:
                    self._seen.add(name)
                    yield row
            if few:
                return

    def halves(self, wanted: int) -> Bools:
        """``wanted`` coalitions ``(wanted, n_units)``, or what is left."""
        return self._table(list(islice(self._stream, wanted)))

    def pairs(self, wanted: int) -> Bools:
        """First halves of ``wanted`` pairs ``(S, not S)``, or of what is left.

        The pair of the full coalition and the empty one is not drawn.
        """
        self._seen.add(coalition.key(np.zeros(self.n_units, dtype=bool)))
        rows: list[Bools] = []
        for row in islice(self._stream, wanted):
            self._seen.add(coalition.key(~row))
            rows.append(row)
        return self._table(rows)

    def _table(self, rows: list[Bools]) -> Bools:
        return np.array(rows, dtype=bool).reshape(len(rows), self.n_units)
