# SPDX-License-Identifier: Apache-2.0
"""L-SHAP: Shapley values among near neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Method, Plan, Scores
from pizza.errors import ConfigError
from pizza.methods._designs.budget import require
from pizza.methods._designs.given import finite
from pizza.methods._fits import model_noise

_CELLS = 2**25
"""Bools in one round: coalitions of very long prompts are asked for in parts."""

Removed = tuple[int, ...]


class LShap(Method):
    """Shapley values of the game that a unit plays with its neighbours; all others stay present.

    ``phi_i = 1/(K+1) sum_{s=0..K} mean over T of size s [v(all - T) - v(all - T - i)]`` with T
    among the ``neighbours`` units on each side of i (Chen et al. 2019, definition 1, with removed
    sets of limited size as in MExGen's L-SHAP). With neighbours and removals without limit these
    are the exact Shapley values. A unit with fewer than K neighbours has fewer sizes.

    A unit's score is undefined in a column where any of its differences is. Standard errors are
    those of the model's noise, where it was measured.

    Args:
        neighbours: M, units on each side, at least 0 (0 = leave-one-out).
        max_removed: K, neighbours that are removed together, at least 0.

    Cost: each distinct coalition once, all in one round: at most
    ``n * sum_{s=0..K} C(2M, s)`` and some more for T alone; about ``9 n`` with the defaults.
    """

    def __init__(self, neighbours: int = 2, max_removed: int = 2) -> None:
        if neighbours < 0:
            raise ConfigError(f"neighbours must be at least 0, not {neighbours!r}.")
        if max_removed < 0:
            raise ConfigError(f"max_removed must be at least 0, not {max_removed!r}.")
        self.neighbours = neighbours
        self.max_removed = max_removed

    def calls(self, n_units: int) -> tuple[int, int]:
        """Every distinct coalition."""
        needed = len(self._needed(n_units))
        return needed, needed

    def _near(self, unit: int, n: int) -> list[int]:
        low, high = max(0, unit - self.neighbours), min(n, unit + self.neighbours + 1)
        return [other for other in range(low, high) if other != unit]

    def _terms(self, unit: int, n: int) -> Iterator[tuple[Removed, Removed, float]]:
        """Removed sets without and with the unit, and the weight of their difference."""
        near = self._near(unit, n)
        largest = min(self.max_removed, len(near))
        for size in range(largest + 1):
            together = list(combinations(near, size))
            for removed in together:
                with_unit = tuple(sorted((*removed, unit)))
                yield removed, with_unit, 1.0 / ((largest + 1) * len(together))

    def _needed(self, n: int) -> dict[Removed, int]:
        """Numbers of the distinct removed sets; the empty one (free) has none."""
        number: dict[Removed, int] = {}
        for unit in range(n):
            for without, with_unit, _ in self._terms(unit, n):
                for removed in (without, with_unit):
                    if removed:
                        number.setdefault(removed, len(number))
        return number

    def plan(self, game: Game) -> Plan:
        """One round, or several when it would not fit into memory."""
        n = game.n_units
        number = self._needed(n)
        require(
            game,
            len(number),
            "l-shap",
            advice="lower neighbours or max_removed, or use larger units (sentence, paragraph).",
        )
        removed = list(number)
        values = np.empty((len(removed), game.n_columns))
        step = max(1, _CELLS // n)
        for start in range(0, len(removed), step):
            rows = _without(removed[start : start + step], n)
            values[start : start + step] = finite((yield rows))
        return self._scores(game, values, number)

    def _scores(
        self, game: Game, values: NDArray[np.float64], number: dict[Removed, int]
    ) -> Scores:
        n = game.n_units
        scores = np.zeros((game.n_columns, n))
        squares, of_all = np.zeros(n), np.zeros(n)
        for unit in range(n):
            for without, with_unit, weight in self._terms(unit, n):
                before = values[number[without]] if without else 0.0
                scores[:, unit] += weight * (before - values[number[with_unit]])
                squares[unit] += weight**2 * (2 if without else 1)
                of_all[unit] += 0.0 if without else weight
        return Scores(
            values=scores,
            standard_errors=model_noise.errors(game, squares, of_all, scores),
            details={"index": "shapley", "samples": len(number)},
        )


def _without(removed: list[Removed], n: int) -> NDArray[np.bool_]:
    present = np.ones((len(removed), n), dtype=bool)
    for row, units in zip(present, removed, strict=True):
        row[list(units)] = False
    return present
