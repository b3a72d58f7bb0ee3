# SPDX-License-Identifier: Apache-2.0
"""Exact Shapley values, from all coalitions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Estimator, Game, Plan, Scores
from pizza.errors import ConfigError
from pizza.methods._designs.budget import require
from pizza.methods._designs.enumeration import Floats, every, marginals
from pizza.methods._designs.given import finite, in_order_of_bits
from pizza.methods._fits import model_noise

LARGEST = 20
"""Units that are enumerated at most: 2^20 is a million coalitions."""

_INSTEAD = (
    "use larger units (sentence, paragraph), or an estimator: 'kernel-shap', 'leverage-shap', "
    "'shapley-sampling'."
)


class Shapley(Estimator):
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

    def calls(self, n_units: int) -> tuple[int, int]:
        """Every coalition but the full one."""
        return 2**n_units - 1, 2**n_units - 1

    def plan(self, game: Game) -> Plan:
        """One round of all coalitions."""
        refuse_too_many(game, "shapley", _INSTEAD)
        require(game, 2**game.n_units - 1, "shapley", advice=_INSTEAD)
        return _scores(game, finite((yield every(game.n_units))))

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """The exact values, from all coalitions in any order."""
        refuse_too_many(game, "shapley", _INSTEAD)
        return _scores(game, in_order_of_bits(game, coalitions, values, who="shapley"))


def _scores(game: Game, values: Floats) -> Scores:
    """From the values of all coalitions, in the order of `every`."""
    means = [_mean_of_sizes(*gains) for gains in marginals(values, game.n_units)]
    scores = np.array([mean for mean, _ in means]).T
    squares = np.array([square for _, square in means]).T
    return Scores(
        values=scores,
        standard_errors=model_noise.errors(game, squares, 1 / game.n_units, scores),
        details={
            "index": "shapley",
            "samples": len(values) - 1,
            "undefined": int(np.isnan(values[:, 0]).sum()),
        },
    )


def refuse_too_many(game: Game, who: str, instead: str) -> None:
    """Refuse games whose coalitions cannot all be evaluated.

    Raises:
        ConfigError: There are more than `LARGEST` units.
    """
    if game.n_units > LARGEST:
        raise ConfigError(
            f"{who} evaluates all 2^n coalitions, so it takes at most {LARGEST} units, not "
            f"{game.n_units}: {instead}"
        )


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
