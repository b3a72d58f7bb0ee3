# SPDX-License-Identifier: Apache-2.0
"""Exact Banzhaf values, from all coalitions."""

from __future__ import annotations

import numpy as np

from pizza.abc import Game
from pizza.methods._designs.all_coalitions import AllCoalitions
from pizza.methods._designs.enumeration import Floats, marginals
from pizza.methods._designs.given import known_mean
from pizza.methods._fits import model_noise


class Banzhaf(AllCoalitions):
    """``beta_i = 2^-(n-1) sum over S without i of (v(S + i) - v(S))``.

    What unit i adds on average when every other unit is present or absent with equal chance
    (Banzhaf 1965): also the weights of the linear model that fits all coalitions best (Hammer &
    Holzman 1992), which is what methods that regress on random halves estimate. Scores need not
    sum to ``v(all) - v(none)``. Gains that are not defined are left out of the mean.

    Standard errors are those of the model's noise, where it was measured.

    Cost: 2^n_units - 1 calls, all in one round; at most 20 units.
    """

    name = "banzhaf"
    estimators = "'context-cite', 'lime'"

    def scores(self, game: Game, values: Floats) -> tuple[Floats, Floats | None]:
        """Means of all gains alike."""
        gains = [gains for _, gains in marginals(values, game.n_units)]
        scores = np.array([known_mean(each) for each in gains]).T
        counts = np.array([(~np.isnan(each)).sum(axis=0) for each in gains]).T
        # The last gain of a unit is that to the full coalition, whose noise is its own.
        to_all = ~np.isnan([each[-1] for each in gains]).T
        with np.errstate(divide="ignore", invalid="ignore"):
            squares, of_all = (2 * counts - to_all) / counts**2, to_all / counts
        return scores, model_noise.errors(game, squares, of_all, scores)
