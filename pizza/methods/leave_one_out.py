# SPDX-License-Identifier: Apache-2.0
"""Leave-one-out: remove each unit alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pizza import coalition
from pizza.abc import Estimator, Game, Plan, Scores
from pizza.errors import ConfigError
from pizza.methods._designs.budget import require
from pizza.methods._designs.given import finite, without_full
from pizza.methods._fits import model_noise


class LeaveOneOut(Estimator):
    """``score_i = v(all) - v(all without i)``: the effect of removing unit i.

    Also known as occlusion (Zeiler & Fergus 2014) and feature ablation. Units that stand in for
    one another (two copies of the same evidence) both score near 0.

    Standard errors are those of the model's noise, where it was measured:
    ``sqrt(noise^2 + noise_all^2)``. From given coalitions it takes those that lack one unit.

    Cost: n_units calls, all in one round.
    """

    def calls(self, n_units: int) -> tuple[int, int]:
        """One call per unit."""
        return n_units, n_units

    def plan(self, game: Game) -> Plan:
        """One round of all coalitions that lack one unit."""
        require(game, game.n_units, "leave-one-out")
        return _scores(game, finite((yield coalition.without_each(game.n_units))))

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """From the coalitions that lack one unit; all of them must be there."""
        rows, values = without_full(game, coalitions, values, who="leave-one-out")
        alone = np.flatnonzero(rows.sum(axis=1) == game.n_units - 1)
        unit = rows[alone].argmin(axis=1)
        if len(np.unique(unit)) < game.n_units:
            missing = sorted(set(range(game.n_units)) - set(unit.tolist()))
            raise ConfigError(
                "leave-one-out needs the coalitions that lack one unit alone, and "
                f"{len(missing)} of {game.n_units} are missing (of the units {missing[:5]}, ...). "
                "Measure with 'leave-one-out', or use an estimator that suits these coalitions."
            )
        ordered = np.empty((game.n_units, values.shape[1]))
        ordered[unit] = values[alone]
        return _scores(game, ordered)


def _scores(game: Game, values: NDArray[np.float64]) -> Scores:
    effects = -values.T
    squares = np.ones(game.n_units)
    return Scores(
        values=effects,
        standard_errors=model_noise.errors(game, squares, 1.0, effects),
        details={"index": "leave-one-out", "samples": game.n_units},
    )
