# SPDX-License-Identifier: Apache-2.0
"""The design that several estimators of Shapley values share: pairs of uniform sizes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pizza.abc import Game, Method
from pizza.methods._samples import check_samples, coalitions_to_spend, paired_calls
from pizza.methods._subsets import Pairs, draw_pairs, uniform_masses


class UniformPairs(Method):
    """Evaluates the empty coalition and complement pairs whose sizes are drawn alike.

    Args:
        samples: Coalitions to evaluate, the empty one included; at least 3. ``None``: what the
            budget allows, 8 per unit (128 at least) without one.
    """

    name: ClassVar[str]

    def __init__(self, samples: int | None = None) -> None:
        self.samples = check_samples(samples)

    def calls(self, n_units: int) -> tuple[int, int]:
        """The empty coalition and a pair; all coalitions at most."""
        return paired_calls(n_units, self.samples, fewest=3)

    def draw(self, game: Game) -> tuple[np.random.Generator, Pairs]:
        """The game's source of random numbers, and the pairs that were drawn from it.

        Raises:
            ConfigError, BudgetTooSmallError: As `coalitions_to_spend` raises them.
        """
        n = game.n_units
        spend = coalitions_to_spend(
            game, self.samples, fewest=3, default=max(128, 8 * n), who=self.name
        )
        rng = np.random.default_rng(game.seed)
        return rng, draw_pairs(n, (spend - 1) // 2, uniform_masses(n), rng)
