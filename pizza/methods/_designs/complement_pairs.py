# SPDX-License-Identifier: Apache-2.0
"""The design that several estimators of Shapley values share: pairs of uniform sizes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Estimator, Game, Plan
from pizza.methods._designs.budget import check_samples, coalitions_to_spend, paired_calls
from pizza.methods._designs.pairs import draw_pairs, uniform_masses


class UniformPairs(Estimator):
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

    def plan(self, game: Game) -> Plan:
        """One round of the empty coalition and the pairs."""
        n = game.n_units
        spend = coalitions_to_spend(
            game, self.samples, fewest=3, default=max(128, 8 * n), who=self.name, share=0.5
        )
        rng = np.random.default_rng(game.seed)
        rows = draw_pairs(n, (spend - 1) // 2, uniform_masses(n), rng).round()
        return self.estimate(game, rows, (yield rows))


def shuffled(game: Game, count: int) -> NDArray[np.int64]:
    """Numbers 0..count-1 in an order that the game's seed decides: for folds."""
    # Another stream than that of the coalitions.
    return np.random.default_rng([game.seed, 1]).permutation(count)
