# SPDX-License-Identifier: Apache-2.0
"""Random halves, alone or with their complements, collected in waves and fitted after each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Scores
from pizza.methods._draws import Draws
from pizza.methods._intervals import CALLS_PER_UNIT, of_pairs, relevant
from pizza.methods._quality import quality
from pizza.methods._regression import Fit, extend, fit, plain
from pizza.methods.pairwise_interactions import mains_and_pairs

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_STABLE = 0.01
"""A smaller change of R2 between waves is none."""

_PERFECT = 0.98
"""Above this R2 there is nothing left to gain, also where there are no intervals."""

_FOUND = 0.6
"""R2 on rows left out from which complements say more than further random halves."""

_CALLS_PER_FOUND = 10

_Z90 = 1.645
_TOP = 5
_LISTED = 10

_LARGEST_SEARCH = 2**18
"""Calls times units up to which the same calls are searched for interactions."""


class Waves:
    """Coalitions so far, their values, and what they say.

    Args:
        n_units: Number of units.
        n_columns: Columns of the values.
        paired: Whether every coalition comes with its complement.
        seed: Of the coalitions.
    """

    def __init__(self, n_units: int, n_columns: int, *, paired: bool, seed: int) -> None:
        self.paired = paired
        self._paired_from_the_start = paired
        self._draws = Draws(n_units, np.random.default_rng(seed))
        self._rows = np.zeros((0, n_units), dtype=bool)
        self._values = np.zeros((0, n_columns))
        self._opposite = np.zeros((0, n_columns))
        self._waves: list[dict[str, Any]] = []
        self._fit: Fit | None = None
        self._before: Fit | None = None

    @property
    def spent(self) -> int:
        """Coalitions evaluated."""
        return len(self._rows) * (2 if self.paired else 1)

    def draw(self, until: int) -> Bools:
        """The coalitions that are missing to ``until`` of them; complements come second."""
        missing = until - self.spent
        if not self.paired:
            return self._draws.halves(missing)
        first = self._draws.pairs(missing // 2)
        return np.concatenate([first, ~first])

    def add(self, rows: Bools, values: Floats) -> None:
        """Take in a wave of `draw` with its values, and fit."""
        if self.paired:
            rows = rows[: len(rows) // 2]
            values, opposite = np.split(values, 2)
            self._opposite = np.vstack([self._opposite, opposite])
        self._rows = np.vstack([self._rows, rows])
        self._values = np.vstack([self._values, values])
        self._before, self._fit = self._fit, self._fitted()
        self._waves.append({"samples": self.spent, "cv_r2": plain(self._fit.cv_r2)})

    def pairing_pays(self) -> bool:
        """Whether the other half of the budget is best spent on the complements of this one.

        Pairs halve the rows and remove what is even in the game from the noise. That pays as soon
        as the units that matter have been found and are few, however many units there are.
        """
        found = self._fit
        if self.paired or found is None or found.kind != "lasso" or not found.cv_r2 > _FOUND:
            return False
        return 2 * self.spent >= _CALLS_PER_FOUND * relevant(found.weights[0])

    def complements(self) -> Bools:
        """The complements of all coalitions so far."""
        return ~self._rows

    def add_complements(self, values: Floats) -> None:
        """Take in the values of `complements`: from now on rows are pairs."""
        self.paired = True
        self._opposite = values
        self._before, self._fit = self._fit, self._fitted()
        self._waves.append({"samples": self.spent, "cv_r2": plain(self._fit.cv_r2)})

    def _odd(self) -> Floats:
        return (self._values - self._opposite) / 2

    def _fitted(self) -> Fit:
        """The fit of column 0; the others wait for the last wave."""
        if self.paired:
            return fit(self._rows - 0.5, self._odd()[:, :1], intercept=False)
        return fit(self._rows, self._values[:, :1])

    def _extended(self) -> Fit:
        """The fit of all columns."""
        found = self._fit
        if found is None or not np.isfinite(found.cv_r2):
            # Column 0 decides nothing (it is constant, or unknown): let another one do it.
            if self.paired:
                return fit(self._rows - 0.5, self._odd(), intercept=False)
            return fit(self._rows, self._values)
        if self._values.shape[1] == 1:
            return found
        if self.paired:
            return extend(found, self._rows - 0.5, self._odd(), intercept=False)
        return extend(found, self._rows, self._values)

    def _estimates(self, found: Fit, columns: slice) -> tuple[Floats, Floats | None, str]:
        """Estimates, their standard errors where there may be any, and the estimator's name."""
        enough = self.spent >= CALLS_PER_UNIT * relevant(found.weights[0])
        if not self._paired_from_the_start or not enough or not np.isfinite(found.cv_r2):
            return found.weights, None, found.kind
        return of_pairs(self._rows - 0.5, self._odd()[:, columns], found)

    def settled(self, tolerance: float) -> bool:
        """Whether more calls would change little: see `Auto`."""
        before, now = self._before, self._fit
        if before is None or now is None:
            return False
        known = np.concatenate([self._values[:, 0], self._opposite[:, 0]])
        known = known[np.isfinite(known)]
        if known.size and np.ptp(known) == 0:
            return True
        if not abs(now.cv_r2 - before.cv_r2) < _STABLE:
            return False
        strongest, earlier = (
            np.argsort(-np.abs(f.weights[0]), kind="stable")[:_TOP] for f in (now, before)
        )
        if not np.array_equal(strongest, earlier):
            return False
        if now.cv_r2 > _PERFECT:
            return True
        estimates, errors, _ = self._estimates(now, slice(0, 1))
        if errors is None:
            return False
        widest = _Z90 * errors[0, strongest].max()
        return bool(widest < tolerance * np.abs(estimates[0]).max())

    def scores(self) -> Scores:
        """What all waves together say."""
        found = self._extended()
        values, errors, estimator = self._estimates(found, slice(None))
        lead = self._values[:, 0]
        measured = np.concatenate([lead, self._opposite[:, 0]]) if self.paired else lead
        details: dict[str, Any] = {
            "index": "banzhaf",
            "design": "complement pairs" if self.paired else "random halves",
            "estimator": estimator,
            "samples": self.spent,
            "undefined": int(np.isnan(measured).sum()),
            "waves": self._waves,
            "quality": quality(found.held_out, measured, found.cv_r2, paired=self.paired),
            "interactions": self._interactions(),
        }
        return Scores(values=values, standard_errors=errors, details=details)

    def _interactions(self) -> list[dict[str, Any]]:
        """Pairs whose 90 % interval leaves out 0, from the same calls."""
        n = self._rows.shape[1]
        if n < 2 or self.spent * n > _LARGEST_SEARCH:
            return []
        rows, values = self._rows, self._values[:, :1]
        if self.paired:
            rows = np.concatenate([rows, ~rows])
            values = np.concatenate([values, self._opposite[:, :1]])
        found = mains_and_pairs(rows, values).listed()
        return [
            pair
            for pair in found
            if pair["standard_error"] is not None
            and abs(pair["value"]) > _Z90 * pair["standard_error"] > 0
        ][:_LISTED]
