# SPDX-License-Identifier: Apache-2.0
"""Exact Banzhaf values, from all coalitions."""

from __future__ import annotations

import numpy as np

from pizza.abc import Game, Method, Plan, Scores
from pizza.methods._subsets import Floats, every, marginals
from pizza.methods.shapley import refuse_too_many

_INSTEAD = "use larger units (sentence, paragraph), or an estimator: 'context-cite', 'lime'."


class Banzhaf(Method):
    """``beta_i = 2^-(n-1) sum over S without i of (v(S + i) - v(S))``.

    What unit i adds on average when every other unit is present or absent with equal chance
    (Banzhaf 1965): also the weights of the linear model that fits all coalitions best (Hammer &
    Holzman 1992), which is what methods that regress on random halves estimate. Scores need not
    sum to ``v(all) - v(none)``. Gains that are not defined are left out of the mean.

    Cost: 2^n_units - 1 calls, all in one round; at most 20 units.
    """

    def calls(self, n_units: int) -> tuple[int, int]:
        """Every coalition but the full one."""
        return 2**n_units - 1, 2**n_units - 1

    def plan(self, game: Game) -> Plan:
        """One round of all coalitions."""
        refuse_too_many(game, "banzhaf", _INSTEAD)
        values = yield every(game.n_units)
        scores = [_mean(gains) for _, gains in marginals(values, game.n_units)]
        return Scores(
            values=np.array(scores).T,
            details={
                "index": "banzhaf",
                "samples": len(values) - 1,
                "undefined": int(np.isnan(values[:, 0]).sum()),
            },
        )


def _mean(gains: Floats) -> Floats:
    known = ~np.isnan(gains)
    counts = known.sum(axis=0)
    sums = np.where(known, gains, 0.0).sum(axis=0)
    result: Floats = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return result
