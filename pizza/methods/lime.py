# SPDX-License-Identifier: Apache-2.0
"""LIME: a linear fit to random halves, those near the whole prompt counted more."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Scores
from pizza.errors import ConfigError
from pizza.methods._designs.given import halves, with_full
from pizza.methods._designs.random_halves import RandomHalves
from pizza.methods._fits.penalties import Kind
from pizza.methods._fits.regression import solve_columns

_WIDTH = 0.25 * np.sqrt(2)
_LIME_SAMPLES = 5000


class Lime(RandomHalves):
    """Weights of a local linear surrogate (Ribeiro et al. 2016, equation 1 and section 3.4).

    ``min over w, b: sum_S k(S) (v(S) - b - sum_i w_i S_i)^2 + penalty(w)`` with
    ``k(S) = exp(-d(S)^2 / width^2)`` and the cosine distance to the whole prompt
    ``d(S) = 1 - sqrt(|S| / n)``. Units are present with probability 1/2 each. The whole prompt is
    one more row, of weight 1, as in LIME's text explainer; its kernel is the square root of this
    one at width 25 for distances in hundredths, which is ``width = 0.25 sqrt(2)`` here.

    With many units all random halves are about equally far from the whole, so the kernel does
    little, and the weights are near the Banzhaf values, shrunk by the penalty.

    Args:
        samples: Coalitions to evaluate. ``None``: what the budget allows, 10 per unit (64 to 512)
            without one.
        regression: ``"ridge"`` (LIME's default) or ``"lasso"``.
        alpha: Penalty in scikit-learn's sense, 0 = none. ``None``: for LASSO 0.01; for ridge LIME's
            1, which is meant for its 5,000 coalitions, times ``samples / 5000``; and none when
            every coalition was evaluated. Ridge is applied to the units as 0 and 1, LASSO to
            standardised ones.
        width: Width of the kernel, above 0.

    Cost: ``samples`` calls, all in one round.
    """

    name = "lime"

    def __init__(
        self,
        samples: int | None = None,
        regression: Literal["ridge", "lasso"] = "ridge",
        alpha: float | None = None,
        width: float = _WIDTH,
    ) -> None:
        super().__init__(samples)
        if regression not in ("ridge", "lasso"):
            raise ConfigError(f"the regression is 'ridge' or 'lasso', not {regression!r}.")
        if alpha is not None and not 0 <= alpha < np.inf:
            raise ConfigError(f"alpha is a number from 0 on, not {alpha!r}.")
        if not width > 0:
            raise ConfigError(f"width is a number above 0, not {width!r}.")
        self.regression: Kind = regression
        self.alpha = alpha
        self.width = width

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """From any random halves, in pairs or not; at least 8 of them."""
        rows, values, complete = halves(game, coalitions, values, who=self.name)
        if not complete:
            rows, values = with_full(rows, values)
        distance = 1.0 - np.sqrt(rows.mean(axis=1))
        # The smallest positive float keeps a narrow kernel from weighing everything zero.
        kernel = np.maximum(np.exp(-((distance / self.width) ** 2)), 1e-300)
        alpha = self._alpha(rows)
        weights, _ = solve_columns(
            rows.astype(np.float64),
            values,
            "ridge" if alpha == 0 else self.regression,
            alpha,
            row_weights=kernel,
            relative=False,
            standardise=self.regression == "lasso",
        )
        return Scores(
            values=weights,
            details={
                "index": "banzhaf",
                "samples": int((~rows.all(axis=1)).sum()),
                "undefined": int(np.isnan(values[:, 0]).sum()),
                "effective_samples": float(kernel.sum() ** 2 / (kernel**2).sum()),
            },
        )

    def _alpha(self, rows: NDArray[np.bool_]) -> float:
        if self.alpha is not None:
            return self.alpha
        if len(rows) == 2 ** rows.shape[1]:
            return 0.0
        return 0.01 if self.regression == "lasso" else len(rows) / _LIME_SAMPLES
