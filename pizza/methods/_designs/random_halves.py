# SPDX-License-Identifier: Apache-2.0
"""The round that regressions on fair coin tosses share: as many random halves as there may be."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pizza.abc import Estimator, Game, Plan
from pizza.methods._designs.budget import affordable, check_samples, coalitions_to_spend
from pizza.methods._designs.enumeration import Coalitions, every
from pizza.methods._designs.halves import FEWEST, Draws, calls_of_halves, usual


class RandomHalves(Estimator):
    """Evaluates coalitions in which each unit is present with probability 1/2.

    When all of them are within reach they are all evaluated, the full one (which is free) included,
    so that a regression on them is exact. Where the budget is counted in tokens or dollars they are
    as many as the limit pays for when half of the units are away, fewer when the ones that were
    drawn happen to be longer.

    Args:
        samples: Coalitions to evaluate. ``None``: what the budget allows, `usual` without one.

    Attributes:
        name: Of the method.
    """

    name: ClassVar[str]

    def __init__(self, samples: int | None = None) -> None:
        self.samples = check_samples(samples)

    def usual(self, n_units: int) -> int:
        """Coalitions when nobody said how many."""
        return usual(n_units)

    def calls(self, n_units: int) -> tuple[int, int]:
        """8 at least, every coalition at most."""
        return calls_of_halves(n_units, self.samples)

    def plan(self, game: Game) -> Plan:
        """One round of random coalitions."""
        rows = self._rows(game)
        return self.estimate(game, rows, (yield rows))

    def _rows(self, game: Game) -> Coalitions:
        n = game.n_units
        spend = coalitions_to_spend(
            game,
            self.samples,
            fewest=FEWEST,
            default=self.usual(n),
            who=self.name,
            advice="use larger units (sentence, paragraph).",
            share=0.5,
        )
        if spend == 2**n - 1:
            return every(n)
        rows = Draws(n, np.random.default_rng(game.seed)).halves(spend)
        return rows[: affordable(game.tariff, rows)]
