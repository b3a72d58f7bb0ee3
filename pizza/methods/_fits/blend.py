# SPDX-License-Identifier: Apache-2.0
"""Three kinds of linear fit, averaged as well as they predict rows left out.

LASSO and the spike-and-slab fit are best where few units matter, ridge and again the latter where
many do. Which of them is best cannot be told from few rows: to pick the winner of a
cross-validation costs more than the average does. So the fits are stacked (Wolpert 1992; Breiman
1996): shares that are not negative and sum to one minimise the error of the predictions of rows
left out, drawn towards equal shares by as much as those errors cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pizza.methods._fits.penalties import (
    choose_lasso,
    choose_ridge,
    choose_ridge_too,
    lead_of,
    mean_square,
    ridge_basis,
    scaled_design,
    spread_to_explain,
)
from pizza.methods._fits.regression import columns_alike, solve_columns
from pizza.methods._fits.spike_slab import left_out, spike_slab

Floats = NDArray[np.float64]
Part = Literal["lasso", "ridge", "spike-slab"]

_TRUST = 0.2
"""Standard deviation of the shares around equal ones before any row was predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
    """A fitted linear surrogate ``v(S) = intercept + sum of the weights of S``.

    Attributes:
        shares: Weight of each kind of fit, those above 0.
        penalties: Of LASSO and ridge, as in `regression.Fit`.
        weights: ``(n_columns, n_units)``; NaN for a column with fewer than two rows.
        intercepts: ``(n_columns,)``.
        freedom: Degrees of freedom of each column's fit, ``(n_columns,)``.
        cv_r2: ``1 - SSE / SST`` of column 0 on rows left out; NaN when it is constant or there are
            too few rows.
        held_out: ``(m,)`` predictions of column 0 by fits that did not see the row; NaN = none.
    """

    shares: Mapping[Part, float]
    penalties: Mapping[Part, float]
    weights: Floats
    intercepts: Floats
    freedom: Floats
    cv_r2: float
    held_out: Floats


def blend(x: NDArray[Any], y: Floats, *, intercept: bool = True) -> Blend:
    """Fit every column, with the shares and penalties that predict column 0 best.

    Args:
        x: ``(m, n)`` design, e.g. coalitions.
        y: ``(m, c)`` values; NaN = this row says nothing about this column.
        intercept: Whether a constant is fitted.
    """
    x = np.asarray(x, dtype=np.float64)
    lead, rows = lead_of(y)
    shares, penalties, r2, predicted = _choose(x[rows], y[rows, lead], intercept)
    held_out = np.full(len(y), np.nan)
    if lead == 0:
        held_out[rows] = predicted
    empty = np.full((y.shape[1], x.shape[1]), np.nan)
    found = Blend(
        shares=shares,
        penalties=penalties,
        weights=empty,
        intercepts=empty[:, 0],
        freedom=empty[:, 0],
        cv_r2=r2,
        held_out=held_out,
    )
    return extend(found, x, y, intercept=intercept)


def extend(found: Blend, x: NDArray[Any], y: Floats, *, intercept: bool = True) -> Blend:
    """The fit of all columns of ``y``, with the shares and penalties chosen on column 0 alone."""
    x = np.asarray(x, dtype=np.float64)
    weights = np.full((y.shape[1], x.shape[1]), np.nan)
    intercepts, freedom = np.full((2, y.shape[1]), np.nan)
    for rows, columns in columns_alike(y):
        if rows.sum() < 2:
            continue
        block = y[np.ix_(rows, columns)]
        weights[columns], intercepts[columns], freedom[columns] = 0.0, 0.0, 0.0
        for part, share in found.shares.items():
            fitted = _solve(part, found.penalties.get(part, x.shape[1]), x[rows], block, intercept)
            weights[columns] += share * fitted[0]
            intercepts[columns] += share * fitted[1]
            # A fit's degrees of freedom are a sum of derivatives, so they mix as the fits do.
            freedom[columns] += share * fitted[2]
    return replace(found, weights=weights, intercepts=intercepts, freedom=freedom)


def _solve(
    part: Part, penalty: float, x: Floats, y: Floats, intercept: bool
) -> tuple[Floats, Floats, Floats]:
    """Weights ``(c, n)``, intercepts and degrees of freedom ``(c,)`` of one kind of fit."""
    if part == "lasso":
        weights, intercepts = solve_columns(x, y, "lasso", penalty, intercept=intercept)
        # Zou, Hastie & Tibshirani 2007: as many as there are nonzero weights.
        return weights, intercepts, (weights != 0).sum(axis=1).astype(np.float64)
    scaled = scaled_design(x, None, intercept)
    target, mean = scaled.centre(y)
    coefficients, freedom = np.zeros((y.shape[1], x.shape[1])), np.zeros(y.shape[1])
    if part == "spike-slab":
        coefficients, freedom = spike_slab(scaled.x, target)
    # A spike-and-slab fit that found no end has no degrees of freedom: ridge always has an answer.
    rest = np.flatnonzero(freedom == 0)
    if len(rest):
        left, squares = ridge_basis(scaled.x)
        solved = (left / (squares + penalty)) @ (left.T @ target[:, rest])
        coefficients[rest] = (scaled.x.T @ solved).T
        freedom[rest] = float((squares / (squares + penalty)).sum())
    return *scaled.back(coefficients, mean), freedom


def _choose(
    x: Floats, y: Floats, intercept: bool
) -> tuple[dict[Part, float], dict[Part, float], float, Floats]:
    """Shares, penalties, R2 on rows left out and the predictions of these."""
    m, n = x.shape
    spread = spread_to_explain(y, None, intercept)
    if not spread:
        return {"ridge": 1.0}, {"ridge": float(n)}, float("nan"), np.full(m, np.nan)
    penalties: dict[Part, float] = {}
    predicted: dict[Part, Floats] = {"spike-slab": left_out(x, y, intercept)}
    penalties["lasso"], predicted["lasso"] = choose_lasso(x, y, None, intercept)
    table = np.column_stack(list(predicted.values()))
    best = 1.0 - mean_square(y[:, None] - table, None).min() / spread**2
    if choose_ridge_too(m, best):
        penalties["ridge"], predicted["ridge"] = choose_ridge(x, y, None, intercept)
        table = np.column_stack(list(predicted.values()))
    shares = stack(table, y)
    held_out = table @ shares
    r2 = 1.0 - float(((y - held_out) ** 2).mean()) / spread**2
    found = {part: float(a) for part, a in zip(predicted, shares, strict=True) if a > 0}
    return found, penalties, r2, held_out


def stack(predicted: Floats, y: Floats) -> Floats:
    """The shares ``a >= 0`` with sum 1 that minimise ``|y - P a|^2 + s^2 |a - 1/k|^2 / 0.2^2``.

    ``s^2`` is the mean square error of the best column of P. There are few columns, so every set
    of those that are not zero is tried.

    Args:
        predicted: ``(m, k)``, P.
        y: ``(m,)``.
    """
    k = predicted.shape[1]
    weight = np.sqrt(mean_square(y[:, None] - predicted, None).min()) / _TRUST
    p = np.vstack([predicted, weight * np.eye(k)])
    equal = np.full(k, 1.0 / k)
    target = np.concatenate([y, weight * equal])
    best, least = equal, np.inf
    for size in range(1, k + 1):
        for chosen in combinations(range(k), size):
            first, *others = chosen
            differences = p[:, others] - p[:, [first]]
            solved = np.linalg.lstsq(differences, target - p[:, first], rcond=None)[0]
            shares = np.zeros(k)
            shares[others], shares[first] = solved, 1.0 - solved.sum()
            error = float(((target - p @ shares) ** 2).sum())
            if (shares >= 0).all() and error < least:
                best, least = shares, error
    return best
