# SPDX-License-Identifier: Apache-2.0
"""Exact Shapley values, from all coalitions."""

from __future__ import annotations

import numpy as np

from pizza.abc import Game
from pizza.methods._designs.all_coalitions import AllCoalitions
from pizza.methods._designs.enumeration import Floats, marginals
from pizza.methods._fits import model_noise


class Shapley(AllCoalitions):
    """``phi_i = sum over S without i of |S|! (n-|S|-1)! / n! (v(S + i) - v(S))``.

    The mean of what unit i adds, over all orders in which units can join (Shapley 1953). Every
    coalition is evaluated once: 2^n of them, never the n! orders. The scores of all units sum to
    ``v(all) - v(none)``, units that are exchangeable score the same, a unit that never changes
    anything scores 0.

    Where a value is not defined, a unit's gains that need it are left out of the mean over the
    coalitions of that size; a size of which nothing is left makes the score NaN.

    Standard errors are those of the model's noise, where it was measured: the root of the sum of
    squared weights of all values, times the noise of one.

    Cost: 2^n_units - 1 calls, all in one round; at most 20 units.
    """

    name = "shapley"
    estimators = "'kernel-shap', 'leverage-shap', 'shapley-sampling'"

    def scores(self, game: Game, values: Floats) -> tuple[Floats, Floats | None]:
        """Means over sizes of the mean gain of each."""
        means = [_mean_of_sizes(*gains) for gains in marginals(values, game.n_units)]
        scores = np.array([mean for mean, _ in means]).T
        squares = np.array([square for _, square in means]).T
        return scores, model_noise.errors(game, squares, 1 / game.n_units, scores)


def _mean_of_sizes(sizes: np.ndarray, gains: Floats) -> tuple[Floats, Floats]:
    """The mean over sizes of the mean gain of each size; NaN gains are left out.

    Returns:
        The mean ``(n_columns,)``, and the sum of squares of what it weighs each value with: every
        value is in one gain, and the full coalition, the only one that is no value, in the last.
    """
    # The Shapley weight of a size times its number of coalitions is 1/n for all sizes.
    order = np.argsort(sizes, kind="stable")
    starts = np.searchsorted(sizes[order], np.arange(sizes.max() + 1))
    known = ~np.isnan(gains[order])
    counts = np.add.reduceat(known.astype(float), starts, axis=0)
    sums = np.add.reduceat(np.where(known, gains[order], 0.0), starts, axis=0)
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    n = len(starts)
    with np.errstate(divide="ignore"):
        squares = (2 / counts).sum(axis=0) - 1
    return means.mean(axis=0), squares / n**2
