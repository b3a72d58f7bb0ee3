# SPDX-License-Identifier: Apache-2.0
"""Main effects and the pairs of the strongest, by one sparse regression on random halves."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza.methods._fits.intervals import CALLS_PER_UNIT, debiased, inflation, relevant
from pizza.methods._fits.regression import columns_alike, fit, least_squares, plain

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

STRONGEST = 12
"""Main effects whose pairs are looked at."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Weights of main effects and pairs.

    Attributes:
        pairs: Which units each pair holds.
        weights: ``(n_columns, n_units + len(pairs))``: mains first.
        errors: Their standard errors, or ``None``.
        cv_r2: Of column 0, with the pairs.
    """

    pairs: list[tuple[int, int]]
    weights: Floats
    errors: Floats | None
    cv_r2: float

    def listed(self) -> list[dict[str, Any]]:
        """The pairs of column 0, strongest first, as plain values."""
        n = self.weights.shape[1] - len(self.pairs)
        weights = self.weights[0, n:]
        errors = np.full(len(weights), np.nan) if self.errors is None else self.errors[0, n:]
        order = np.argsort(-np.abs(np.nan_to_num(weights)), kind="stable")
        return [
            {
                "units": list(self.pairs[i]),
                "value": plain(weights[i]),
                "standard_error": plain(errors[i]),
            }
            for i in order
        ]


def mains_and_pairs(
    rows: Bools, values: Floats, strongest: int = STRONGEST, *, complete: bool = False
) -> Terms:
    """Fit main effects and the pairs of the strongest ones.

    Args:
        rows: ``(m, n)`` coalitions of fair coin tosses.
        values: ``(m, c)``; NaN = unknown.
        strongest: Units among which pairs are looked for.
        complete: Whether the rows are all coalitions; then least squares is exact.
    """
    signs = rows - 0.5
    mains = (least_squares(signs, values) if complete else fit(signs, values).weights)[0]
    first = np.argsort(-np.abs(np.nan_to_num(mains)), kind="stable")[:strongest]
    pairs = [(int(a), int(b)) for a, b in combinations(sorted(first), 2)]
    products = [signs[:, a] * signs[:, b] for a, b in pairs]
    design = np.column_stack([signs, *products])
    if complete:
        return Terms(pairs, least_squares(design, values), None, float("nan"))
    found = fit(design, values, kinds=("lasso",))
    if len(rows) < CALLS_PER_UNIT * relevant(found.weights[0]):
        return Terms(pairs, found.weights, None, found.cv_r2)
    # Residuals over the degrees of freedom that are left, as `of_blend` takes them, would take off
    # the 1 to 3 % by which pairs are too small here, but add 10 to 20 % to the error of terms
    # without effect; intervals hold the truth about as often either way.
    factor = inflation(design, values[:, 0] - found.intercepts[0], found)
    weights, errors = np.full_like(found.weights, np.nan), np.full_like(found.weights, np.nan)
    for known, columns in columns_alike(values):
        if known.sum() < 2:
            continue
        a, y = design[known], values[np.ix_(known, columns)]
        weights[columns], errors[columns] = debiased(
            a - a.mean(axis=0), y - y.mean(axis=0), found.weights[columns], factor
        )
    return Terms(pairs, weights, errors, found.cv_r2)
