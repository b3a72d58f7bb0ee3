# SPDX-License-Identifier: Apache-2.0
"""Exact Banzhaf values, from all coalitions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Estimator, Game, Plan, Scores
from pizza.methods._designs.budget import require
from pizza.methods._designs.enumeration import Floats, every, marginals
from pizza.methods._designs.given import finite, in_order_of_bits
from pizza.methods._fits import model_noise
from pizza.methods.shapley import refuse_too_many

_INSTEAD = "use larger units (sentence, paragraph), or an estimator: 'context-cite', 'lime'."


class Banzhaf(Estimator):
    """``beta_i = 2^-(n-1) sum over S without i of (v(S + i) - v(S))``.

    What unit i adds on average when every other unit is present or absent with equal chance
    (Banzhaf 1965): also the weights of the linear model that fits all coalitions best (Hammer &
    Holzman 1992), which is what methods that regress on random halves estimate. Scores need not
    sum to ``v(all) - v(none)``. Gains that are not defined are left out of the mean.

    Standard errors are those of the model's noise, where it was measured.

    Cost: 2^n_units - 1 calls, all in one round; at most 20 units.
    """

    def calls(self, n_units: int) -> tuple[int, int]:
        """Every coalition but the full one."""
        return 2**n_units - 1, 2**n_units - 1

    def plan(self, game: Game) -> Plan:
        """One round of all coalitions."""
        refuse_too_many(game, "banzhaf", _INSTEAD)
        require(game, 2**game.n_units - 1, "banzhaf", advice=_INSTEAD)
        return _scores(game, finite((yield every(game.n_units))))

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """The exact values, from all coalitions in any order."""
        refuse_too_many(game, "banzhaf", _INSTEAD)
        return _scores(game, in_order_of_bits(game, coalitions, values, who="banzhaf"))


def _scores(game: Game, values: Floats) -> Scores:
    """From the values of all coalitions, in the order of `every`."""
    gains = [gains for _, gains in marginals(values, game.n_units)]
    scores = np.array([_mean(each) for each in gains]).T
    counts = np.array([(~np.isnan(each)).sum(axis=0) for each in gains]).T
    # The last gain of a unit is that to the full coalition, whose noise is its own.
    to_all = ~np.isnan([each[-1] for each in gains]).T
    with np.errstate(divide="ignore", invalid="ignore"):
        squares, of_all = (2 * counts - to_all) / counts**2, to_all / counts
    return Scores(
        values=scores,
        standard_errors=model_noise.errors(game, squares, of_all, scores),
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
