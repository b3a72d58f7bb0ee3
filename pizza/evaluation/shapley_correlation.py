# SPDX-License-Identifier: Apache-2.0
"""The scores beside exact Shapley values, where all coalitions can be evaluated."""

from __future__ import annotations

import numpy as np

from pizza.abc import Game
from pizza.errors import ConfigError
from pizza.evaluation.case import Case, Effort
from pizza.evaluation.measure import Inquiry, Measure, plain, spearman
from pizza.methods._designs.all_coalitions import LARGEST
from pizza.methods.shapley import Shapley


class ShapleyCorrelation(Measure):
    """``Spearman(scores, Shapley values)`` with the Shapley values by enumeration.

    The details have the relative squared error ``||scores - phi||^2 / ||phi||^2`` and the values.
    Source of the values: Shapley 1953, by the method `shapley`.

    Args:
        limit: Most units; above, 2^n coalitions are too many.

    Cost: ``2^n_units - 1`` calls; every other measure of the same run is then nearly free.
    """

    name = "shapley-correlation"
    higher_is_better = True
    meaning = "same ranking as exact Shapley values?"
    only_with_room = True

    def __init__(self, limit: int = 10) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or not 2 <= limit <= LARGEST:
            raise ConfigError(f"limit of {self.name!r} is 2 to {LARGEST} units, not {limit!r}.")
        super().__init__(**({} if limit == 10 else {"limit": limit}))
        self.limit = limit

    def calls(self, n_units: int) -> tuple[int, int]:
        """Every coalition but the full one."""
        return 2**n_units - 1, 2**n_units - 1

    def unsuited(self, case: Case) -> str:
        """Neither too many units nor one that there is nothing to rank against."""
        if case.n_units > self.limit:
            return (
                f"it evaluates all coalitions of at most {self.limit} units (option limit, up to "
                f"{LARGEST}), and there are {case.n_units}"
            )
        return "one unit has no rank" if case.n_units < 2 else ""

    def plan(self, case: Case, effort: Effort) -> Inquiry:
        """One round of all coalitions."""
        n = case.n_units
        game = Game(
            n_units=n,
            n_columns=1,
            groups=np.zeros((n, 3), dtype=np.int64),
            lengths=np.ones(n, dtype=np.int64),
        )
        exact = Shapley().plan(game)
        values = yield next(exact)
        try:
            exact.send(values[:, None])
        except StopIteration as end:
            phi = end.value.values[0]
        both = ~np.isnan(phi) & ~np.isnan(case.scores)
        energy = float((phi[both] ** 2).sum())
        missed = float(((case.scores[both] - phi[both]) ** 2).sum())
        return self.figure(
            spearman(case.scores[both], phi[both]),
            scale="rank correlation",
            # The mean over all orders, exactly.
            random=0.0,
            details={
                "relative_squared_error": missed / energy if energy > 0 else None,
                "shapley": plain(phi),
            },
        )
