# SPDX-License-Identifier: Apache-2.0
"""Penalised linear fits of values on coalitions: what the regression methods share.

Columns of the design are brought to zero mean and unit variance, so one penalty is fair to all
units. The kind of penalty and its strength are chosen by cross-validation on column 0, which
decides for the whole game; every other column is fitted with the same kind at the same strength
relative to its own spread. That keeps the fit of a hundred output tokens as cheap as it must be,
at the price of a penalty that is not tuned for tokens that are noisier than the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza.methods._fits.penalties import (
    TINY,
    Floats,
    Kind,
    choose_lasso,
    choose_ridge,
    choose_ridge_too,
    lasso_path,
    lead_of,
    mean_square,
    ridge,
    scaled_design,
    spread_to_explain,
    top_alpha,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A fitted linear surrogate ``v(S) = intercept + sum of the weights of S``.

    Attributes:
        kind: The penalty in use.
        penalty: Its strength: for LASSO the alpha of scikit-learn over the spread of the column,
            for ridge the lambda; both on standardised columns.
        weights: ``(n_columns, n_units)``; NaN for a column with fewer than two rows.
        intercepts: ``(n_columns,)``.
        cv_r2: ``1 - SSE / SST`` of column 0 on rows left out; NaN when it is constant or there are
            too few rows.
        held_out: ``(m,)`` predictions of column 0 by fits that did not see the row; NaN = none.
    """

    kind: Kind
    penalty: float
    weights: Floats
    intercepts: Floats
    cv_r2: float
    held_out: Floats


@dataclass(frozen=True, slots=True)
class _Choice:
    kind: Kind
    penalty: float
    r2: float
    held_out: Floats


def _choose(
    x: Floats, y: Floats, weights: Floats | None, intercept: bool, kinds: Sequence[Kind]
) -> _Choice:
    """The kind and strength of the penalty with the smallest error on rows left out."""
    spread = spread_to_explain(y, weights, intercept)
    if not spread:
        return _Choice("ridge", float(x.shape[1]), float("nan"), np.full(len(y), np.nan))
    choices: list[_Choice] = []
    for kind in kinds:
        if kind == "ridge" and choices and not choose_ridge_too(len(y), choices[-1].r2):
            continue
        choose = choose_lasso if kind == "lasso" else choose_ridge
        penalty, held_out = choose(x, y, weights, intercept)
        error = float(mean_square((y - held_out)[:, None], weights)[0])
        choices.append(_Choice(kind, penalty, 1.0 - error / spread**2, held_out))
    return max(choices, key=lambda choice: choice.r2)


def columns_alike(y: Floats) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.intp]]]:
    """The rows that are known, and the columns of which this is true, until all are named."""
    known = np.isfinite(y)
    alike: dict[bytes, list[int]] = {}
    for column in range(y.shape[1]):
        alike.setdefault(np.packbits(known[:, column]).tobytes(), []).append(column)
    for columns in alike.values():
        yield known[:, columns[0]], np.array(columns, dtype=np.intp)


def solve_columns(
    x: Floats,
    y: Floats,
    kind: Kind,
    penalty: float,
    *,
    row_weights: Floats | None = None,
    intercept: bool = True,
    relative: bool = True,
    standardise: bool = True,
) -> tuple[Floats, Floats]:
    """Weights ``(c, n)`` and intercepts ``(c,)`` of every column at one penalty.

    Args:
        x: ``(m, n)`` design.
        y: ``(m, c)`` values; NaN = this row says nothing about this column.
        kind: LASSO or ridge.
        penalty: Its strength; a ridge of 0 is least squares.
        row_weights: ``(m,)`` positive, or ``None`` for equal ones.
        intercept: Whether a constant is fitted.
        relative: Whether a LASSO's penalty is a multiple of each column's spread, or absolute.
        standardise: Whether the penalty is for units of variance 1, or for the design as it is;
            then row weights are taken as they are, not relative to their mean.
    """
    weights = np.full((y.shape[1], x.shape[1]), np.nan)
    intercepts = np.full(y.shape[1], np.nan)
    for rows, columns in columns_alike(y):
        if rows.sum() < 2:
            continue
        w = None if row_weights is None else row_weights[rows]
        scaled = scaled_design(x[rows], w, intercept, standardise)
        target, mean = scaled.centre(y[np.ix_(rows, columns)])
        if kind == "ridge":
            # Scaling makes the mean row weight 1.
            mean_weight = 1.0 if standardise or w is None else float(w.mean())
            found = ridge(scaled.x, target, penalty / mean_weight)
        else:
            found = np.zeros((len(columns), x.shape[1]))
            for row, column in zip(found, target.T, strict=True):
                alpha = penalty * (float(np.sqrt(np.mean(column**2))) if relative else 1.0)
                top = top_alpha(scaled.x, column)
                if top > max(alpha, TINY):
                    # A short path to the penalty converges faster than a cold start at it.
                    path = np.geomspace(top, max(alpha, 1e-6 * top), 10)
                    row[:] = lasso_path(scaled.x, column, path)[:, -1]
        weights[columns], intercepts[columns] = scaled.back(found, mean)
        if kind == "ridge" and penalty == 0:
            # Least squares knows nothing of a unit that is in all of the rows or in none. A
            # penalised fit does: without evidence its answer is zero.
            still = np.flatnonzero(np.ptp(x[rows], axis=0) == 0)
            weights[np.ix_(columns, still)] = np.nan
    return weights, intercepts


def plain(number: float) -> float | None:
    """A number that JSON knows: NaN is ``None``."""
    return float(number) if np.isfinite(number) else None


def least_squares(x: NDArray[Any], y: Floats, row_weights: Floats | None = None) -> Floats:
    """Weights ``(c, n)`` without penalty, with intercept; NaN for units that never vary."""
    return solve_columns(np.asarray(x, dtype=np.float64), y, "ridge", 0.0, row_weights=row_weights)[
        0
    ]


def fit(
    x: NDArray[Any],
    y: Floats,
    *,
    kinds: Sequence[Kind] = ("lasso", "ridge"),
    row_weights: Floats | None = None,
    intercept: bool = True,
) -> Fit:
    """Fit every column, with the penalty that predicts column 0 best on rows left out.

    Args:
        x: ``(m, n)`` design, e.g. coalitions.
        y: ``(m, c)`` values; NaN = this row says nothing about this column.
        kinds: Penalties to choose from.
        row_weights: ``(m,)`` positive, or ``None`` for equal ones.
        intercept: Whether a constant is fitted.
    """
    x = np.asarray(x, dtype=np.float64)
    lead, rows = lead_of(y)
    w = None if row_weights is None else row_weights[rows]
    choice = _choose(x[rows], y[rows, lead], w, intercept, kinds)
    held_out = np.full(len(y), np.nan)
    if lead == 0:
        held_out[rows] = choice.held_out
    weights, intercepts = solve_columns(
        x, y, choice.kind, choice.penalty, row_weights=row_weights, intercept=intercept
    )
    return Fit(
        kind=choice.kind,
        penalty=choice.penalty,
        weights=weights,
        intercepts=intercepts,
        cv_r2=choice.r2,
        held_out=held_out,
    )


def extend(found: Fit, x: NDArray[Any], y: Floats, *, intercept: bool = True) -> Fit:
    """The fit of all columns of ``y``, with the penalty that was chosen on column 0 alone."""
    weights, intercepts = solve_columns(
        np.asarray(x, dtype=np.float64), y, found.kind, found.penalty, intercept=intercept
    )
    return replace(found, weights=weights, intercepts=intercepts)
