# SPDX-License-Identifier: Apache-2.0
"""What random halves, alone or with their complements, say: fit, errors, quality, interactions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Scores
from pizza.methods._fits.blend import Blend, blend, extend
from pizza.methods._fits.intervals import CALLS_PER_UNIT, of_blend, relevant
from pizza.methods._fits.pair_terms import mains_and_pairs
from pizza.methods._fits.quality import quality
from pizza.methods._fits.regression import plain

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Z90 = 1.645
_LISTED = 10

_LARGEST_SEARCH = 2**18
"""Calls times units up to which the same calls are searched for interactions."""


def noise_of(game: Game) -> float:
    """Standard deviation of values of column 0 that comes from the model; 0 = none known."""
    return 0.0 if game.noise is None else float(np.nan_to_num(game.noise[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves:
    """Random halves and their values.

    Attributes:
        rows: ``(m, n_units)``; of pairs the first members.
        values: ``(m, n_columns)``; NaN = not known.
        opposite: The values of the complements, or ``None``: no pairs.
        noise: Standard deviation of values of column 0 that comes from the model, 0 = none known.
    """

    rows: Bools
    values: Floats
    opposite: Floats | None = None
    noise: float = 0.0

    @property
    def paired(self) -> bool:
        """Whether rows are pairs."""
        return self.opposite is not None

    @property
    def spent(self) -> int:
        """Coalitions evaluated."""
        return len(self.rows) * (2 if self.paired else 1)

    @property
    def measured(self) -> Floats:
        """Values of column 0: of first members, then of complements."""
        if self.opposite is None:
            return self.values[:, 0]
        return np.concatenate([self.values[:, 0], self.opposite[:, 0]])

    @property
    def ceiling(self) -> float:
        """The R2 on rows left out that the model's noise leaves to be reached."""
        target = self._target[:, 0]
        target = target[np.isfinite(target)]
        spread = float((target**2).mean() if self.paired else target.var()) if target.size else 0.0
        variance = self.noise**2 / (2 if self.paired else 1)
        return max(0.0, 1.0 - variance / spread) if spread > 0 else 1.0

    @property
    def _target(self) -> Floats:
        """What is regressed on the rows: pairs leave the odd part, in which constants cancel."""
        return self.values if self.opposite is None else (self.values - self.opposite) / 2

    @property
    def _signs(self) -> Floats:
        return self.rows.astype(np.float64) - 0.5

    def _design(self, columns: slice) -> tuple[Floats, Floats]:
        """What is regressed on what.

        The whole prompt's value is known without a call and without noise: where few rows have to
        do it is one more, though nobody drew it. In pairs it would need the empty coalition.
        """
        x, y = self._signs, self._target[:, columns]
        if self.paired:
            return x, y
        # A column of which nothing is known has no use for it.
        whole = np.where(np.isfinite(y).any(axis=0), 0.0, np.nan)
        return np.vstack([x, np.full(x.shape[1], 0.5)]), np.vstack([y, whole])

    def _blended(self, columns: slice) -> Blend:
        found = blend(*self._design(columns), intercept=not self.paired)
        return replace(found, held_out=found.held_out[: len(self.rows)])

    def fitted(self) -> Blend:
        """The fit of column 0; the others wait for the last wave."""
        return self._blended(slice(0, 1))

    def extended(self, found: Blend | None) -> Blend:
        """The fit of all columns, given that of column 0."""
        if found is None or not np.isfinite(found.cv_r2):
            # Column 0 decides nothing (it is constant, or unknown): let another one do it.
            return self._blended(slice(None))
        if self.values.shape[1] == 1:
            return found
        return extend(found, *self._design(slice(None)), intercept=not self.paired)

    def estimates(self, found: Blend, columns: slice) -> tuple[Floats, Floats | None, str]:
        """Estimates, their standard errors where there may be any, and the estimator's name.

        Estimates that have errors are unbiased for units without effect too, which costs accuracy:
        little when there are as many pairs as units, and much more than it is worth below.
        """
        enough = self.spent >= CALLS_PER_UNIT * relevant(found.weights[0])
        if not self.paired or len(self.rows) < self.rows.shape[1] or not enough:
            return found.weights, None, "blend"
        if not np.isfinite(found.cv_r2):
            return found.weights, None, "blend"
        return of_blend(self._signs, self._target[:, columns], found, intercept=False)

    def scores(self, found: Blend | None) -> Scores:
        """What all rows together say."""
        found = self.extended(found)
        values, errors, estimator = self.estimates(found, slice(None))
        measured = self.measured
        details: dict[str, Any] = {
            "index": "banzhaf",
            "design": "complement pairs" if self.paired else "random halves",
            "estimator": estimator,
            "shares": {part: round(share, 3) for part, share in found.shares.items()},
            "samples": self.spent,
            "undefined": int(np.isnan(measured).sum()),
            "quality": quality(found.held_out, measured, found.cv_r2, paired=self.paired),
            "interactions": self._interactions(),
        }
        if self.noise:
            details["noise"] = self.noise
            details["quality"]["r2_without_noise"] = plain(self.ceiling)
        return Scores(values=values, standard_errors=errors, details=details)

    def _interactions(self) -> list[dict[str, Any]]:
        """Pairs whose 90 % interval leaves out 0, from the same calls."""
        n = self.rows.shape[1]
        if n < 2 or self.spent * n > _LARGEST_SEARCH:
            return []
        rows, values = self.rows, self.values[:, :1]
        if self.opposite is not None:
            rows = np.concatenate([rows, ~rows])
            values = np.concatenate([values, self.opposite[:, :1]])
        found = mains_and_pairs(rows, values).listed()
        return [
            pair
            for pair in found
            if pair["standard_error"] is not None
            and abs(pair["value"]) > Z90 * pair["standard_error"] > 0
        ][:_LISTED]
