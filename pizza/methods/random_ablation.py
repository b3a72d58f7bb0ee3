# SPDX-License-Identifier: Apache-2.0
"""Random ablation: the mean value with a unit less the mean value without it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Scores
from pizza.methods._designs.given import halves
from pizza.methods._designs.random_halves import RandomHalves
from pizza.methods._fits import model_noise


class RandomAblation(RandomHalves):
    """``score_i = mean(v(S) : i in S) - mean(v(S) : i not in S)`` over random halves.

    What TokenSHAP computes (Goldshmidt & Horovicz 2024, equation 3) and calls Shapley values; over
    equally likely coalitions it estimates Banzhaf values, and we name it after what it does.
    TokenSHAP also evaluates the coalitions that lack one unit, which biases the means of all other
    units; and it shifts and divides the scores, which we do not. Every other unit's effect is noise
    in a difference of means: regression ('context-cite', 'auto') needs far fewer calls.

    Standard errors are Welch's, ``sqrt(var_with / n_with + var_without / n_without)``, and 0 once
    every coalition was evaluated, but for the model's noise where it was measured. A unit that was
    never absent, or never present, in the coalitions that a column knows has no score (NaN).

    Args:
        samples: Coalitions to evaluate. ``None``: what the budget allows, 10 per unit (64 to 512)
            without one. All coalitions when so many exist: then the scores are exact.

    Cost: ``samples`` calls, all in one round.
    """

    name = "random-ablation"

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """From any random halves, in pairs or not; at least 8 of them."""
        rows, values, complete = halves(game, coalitions, values, who=self.name)
        n_with, mean_with, var_with = _moments(rows, values)
        n_without, mean_without, var_without = _moments(~rows, values)
        with np.errstate(invalid="ignore", divide="ignore"):
            errors = np.sqrt(var_with / n_with + var_without / n_without)
        if complete:
            whole = np.isfinite(values).all(axis=0)
            half = len(rows) / 2
            noise = model_noise.variance(
                game, np.full(game.n_units, (2 * half - 1) / half**2), 1 / half
            )
            errors[whole] = 0.0 if noise is None else np.sqrt(noise[whole])
        return Scores(
            values=mean_with - mean_without,
            standard_errors=errors,
            details={
                "index": "banzhaf",
                "samples": int((~rows.all(axis=1)).sum()),
                "undefined": int(np.isnan(values[:, 0]).sum()),
            },
        )


def _moments(
    present: NDArray[np.bool_], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Count, mean and variance of the values of the rows that hold each unit, ``(c, n)`` each."""
    known = np.isfinite(values)
    inside = present.astype(np.float64)
    # Sums of squares around a column's own mean: around zero they would cancel.
    centre = np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    off = np.where(known, values - centre, 0.0)
    counts = known.T.astype(np.float64) @ inside
    with np.errstate(invalid="ignore", divide="ignore"):
        means = off.T @ inside / counts
        variances = (off.T**2 @ inside - counts * means**2) / (counts - 1)
    variances[counts < 2] = np.nan
    return counts, means + centre[:, None], np.maximum(variances, 0.0)
