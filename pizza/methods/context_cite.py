# SPDX-License-Identifier: Apache-2.0
"""ContextCite: a LASSO on random halves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Scores
from pizza.errors import ConfigError
from pizza.methods._designs.given import halves
from pizza.methods._designs.random_halves import RandomHalves
from pizza.methods._fits.regression import fit, least_squares, plain, solve_columns

_SAMPLES = 64


class ContextCite(RandomHalves):
    """Weights of a sparse linear surrogate, fitted to coalitions of fair coin tosses.

    ``min over w, b: 1/(2m) sum_S (v(S) - b - sum_i w_i (S_i - 1/2) / sd_i)^2 + alpha sum |w_i|``
    (Cohen-Wang et al. 2024, section 3): each unit is present with probability 1/2, coalitions are
    standardised, weights are returned in the units of the values. They estimate Banzhaf values, and
    on prompts with a few relevant units they need about 8 to 10 calls per *relevant* unit, however
    many units there are.

    alpha is chosen by 5-fold cross-validation on the whole output, and each further column has the
    same alpha relative to its spread. The original's fixed ``alpha=0.01`` is an option; there it is
    applied to the mean over output tokens, here to the values as they are given, so with values
    that are sums over T tokens ``alpha=0.01 * T`` is the original's.

    The original's target is the logit of the probability of the whole response. Values here are
    relative to the whole prompt's, ``v(S) = -effect(S)``, from which that logit cannot be had
    without the reference's own log-probability: so the metric's scale is used as it is. With a
    log-probability metric the two agree but for near-certain responses.

    When every coalition is within reach, all are evaluated and cross-validation gives way to least
    squares: those weights are exact.

    Args:
        samples: Coalitions to evaluate. ``None``: what the budget allows, 64 without one.
        alpha: A fixed penalty, in the unit of the values; ``None`` = cross-validated.

    Cost: ``samples`` calls, all in one round.
    """

    name = "context-cite"

    def __init__(self, samples: int | None = None, alpha: float | None = None) -> None:
        super().__init__(samples)
        if alpha is not None and not 0 < alpha < np.inf:
            raise ConfigError(f"alpha is a number above 0, or None to choose it, not {alpha!r}.")
        self.alpha = alpha

    def usual(self, n_units: int) -> int:
        """The original's number."""
        return _SAMPLES

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """From any random halves, in pairs or not; at least 8 of them."""
        rows, values, _ = halves(game, coalitions, values, who=self.name)
        details: dict[str, Any] = {
            "index": "banzhaf",
            "samples": int((~rows.all(axis=1)).sum()),
            "undefined": int(np.isnan(values[:, 0]).sum()),
        }
        return Scores(values=self._weights(rows, values, details), details=details)

    def _weights(
        self, rows: NDArray[np.bool_], values: NDArray[np.float64], details: dict[str, Any]
    ) -> NDArray[np.float64]:
        if self.alpha is not None:
            details["alpha"] = self.alpha
            x = rows.astype(np.float64)
            return solve_columns(x, values, "lasso", self.alpha, relative=False)[0]
        if len(rows) == 2 ** rows.shape[1]:
            return least_squares(rows, values)
        found = fit(rows, values, kinds=("lasso",))
        details["relative_alpha"] = found.penalty if found.kind == "lasso" else None
        details["cv_r2"] = plain(found.cv_r2)
        return found.weights
