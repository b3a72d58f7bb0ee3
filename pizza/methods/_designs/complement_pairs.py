# SPDX-License-Identifier: Apache-2.0
"""The round that estimators of Shapley values share: the empty coalition and complement pairs."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Estimator, Game, Plan
from pizza.methods._designs.budget import check_samples, coalitions_to_spend, paired_calls
from pizza.methods._designs.enumeration import Floats
from pizza.methods._designs.pairs import draw_pairs, uniform_masses


class ComplementPairs(Estimator):
    """Evaluates the empty coalition and complement pairs, sizes alike unless a method differs.

    A pair costs what the whole prompt and an empty one cost, whichever pair it is: so of a budget
    in tokens or dollars each coalition takes half of the units, and the limit is kept.

    Args:
        samples: Coalitions to evaluate, the empty one included. ``None``: what the budget allows,
            `per_unit` per unit (128 at least) without one.

    Attributes:
        name: Of the method.
        per_unit: Coalitions per unit where there is no budget.
        advice: What to do when the budget is too small; ``""`` = what is usual.
    """

    name: ClassVar[str]
    per_unit: ClassVar[int] = 8
    advice: ClassVar[str] = ""

    def __init__(self, samples: int | None = None) -> None:
        self.samples = check_samples(samples)

    def fewest(self, n_units: int) -> int:
        """Coalitions that it needs, where there are so many: here the empty one and a pair."""
        return 3

    def size_masses(self, n_units: int) -> Floats:
        """In proportion to what sizes 1..n//2 are drawn, see `draw_pairs`: here all alike."""
        return uniform_masses(n_units)

    def calls(self, n_units: int) -> tuple[int, int]:
        """The empty coalition and as many pairs as it needs; all coalitions at most."""
        return paired_calls(n_units, self.samples, fewest=self.fewest(n_units))

    def plan(self, game: Game) -> Plan:
        """One round of the empty coalition and the pairs."""
        n = game.n_units
        spend = coalitions_to_spend(
            game,
            self.samples,
            fewest=self.fewest(n),
            default=max(128, self.per_unit * n),
            who=self.name,
            advice=self.advice,
            share=0.5,
        )
        rng = np.random.default_rng(game.seed)
        rows = draw_pairs(n, (spend - 1) // 2, self.size_masses(n), rng).round()
        return self.estimate(game, rows, (yield rows))


def shuffled(game: Game, count: int) -> NDArray[np.int64]:
    """Numbers 0..count-1 in an order that the game's seed decides: for folds."""
    # Another stream than that of the coalitions.
    return np.random.default_rng([game.seed, 1]).permutation(count)
