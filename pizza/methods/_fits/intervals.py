# SPDX-License-Identifier: Apache-2.0
"""Standard errors of the weights that random halves and complement pairs give.

Values, or for pairs their odd part ``Y = (v(S) - v(not S)) / 2``, are regressed on ``A = S - 1/2``.
What the weights do not explain is measured by the residuals, so the errors are right whether the
game is additive or not, and whether or not the model's answers are noisy. A bootstrap of a LASSO at
a fixed penalty is not used: it covers about half of the time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pizza.methods._fits.blend import Blend
from pizza.methods._fits.regression import Fit, columns_alike

Floats = NDArray[np.float64]

OLS_PAIRS = 1.3
"""Least squares is considered above so many pairs per unit."""

CALLS_PER_UNIT = 8
"""Below so many calls per relevant unit no standard error is given: it would be too small."""


def relevant(weights: Floats) -> int:
    """Units that it takes, strongest first, to have 95 % of the sum of squared weights."""
    squares = np.sort(np.nan_to_num(weights) ** 2)[::-1]
    total = squares.sum()
    if total <= 0:
        return 0
    return int(np.searchsorted(np.cumsum(squares), 0.95 * total)) + 1


def ols_hc3(a: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Least squares without intercept, with HC3 errors (MacKinnon & White 1985).

    ``V = G A' diag((e / (1 - h))**2) A G`` with ``G = (A'A)^-1`` and leverages h: robust against
    residuals whose size depends on the coalition.

    Args:
        a: ``(m, n)`` design, m > n.
        y: ``(m, c)`` values without NaN.

    Returns:
        Weights and standard errors, ``(c, n)`` each. A design without full rank has NaN errors.
    """
    gram = np.linalg.pinv(a.T @ a, hermitian=True)
    weights = gram @ (a.T @ y)
    leverage = np.einsum("ij,jk,ik->i", a, gram, a, optimize=True)
    # A row that fits itself (h = 1) says nothing of its own error.
    residuals = (y - a @ weights) / np.maximum(1.0 - leverage, 1e-9)[:, None]
    variance = ((a @ gram) ** 2).T @ residuals**2
    errors = np.sqrt(variance).T
    if np.linalg.matrix_rank(a) < a.shape[1]:
        errors[:] = np.nan
    return weights.T, errors


def debiased(
    a: Floats,
    y: Floats,
    weights: Floats,
    inflation: Floats | float = 1.0,
    freedom: Floats | float = 0.0,
) -> tuple[Floats, Floats]:
    """One Newton step per unit from a penalised fit, and its error.

    ``b = w + A'Z / diag(A'A)`` with ``Z = (Y - A w) / (1 - df/m)`` and
    ``se**2 = inflation * sum(A**2 Z**2) / diag(A'A)**2``: the debiased LASSO (Zhang & Zhang 2014,
    van de Geer et al. 2014) for a design whose columns are independent, which coalitions of
    independent coin tosses are. Residuals of the rows that were fitted are too small by what was
    fitted to them, and so is the step; dividing by ``1 - df/m`` makes up for both (Bellec & Zhang
    2022), and b is then around the weights with that error for null units too. For
    a fit whose degrees of freedom are not known, ``inflation`` mends the error only.

    Args:
        a: ``(m, n)`` design with zero mean.
        y: ``(m, c)`` values without NaN.
        weights: ``(c, n)`` penalised fit.
        inflation: Mean square on rows left out over mean square on rows fitted: see `inflation`;
            of all columns or of each, ``(c,)``.
        freedom: Degrees of freedom of each column's fit, ``(c,)``; 0 = not known.

    Returns:
        Debiased weights and their standard errors, ``(c, n)`` each.
    """
    squares = (a**2).sum(axis=0)
    squares[squares == 0] = np.inf
    # Beyond that the fit goes through nearly every row, and residuals say little.
    left = np.maximum(1.0 - np.asarray(freedom) / max(len(a), 1), 0.1)
    residuals = (y - a @ weights.T) / left
    steps = (a.T @ residuals / squares[:, None]).T
    variance = inflation * ((a**2).T @ residuals**2) / squares[:, None] ** 2
    return weights + steps, np.sqrt(variance).T


def inflation(a: Floats, y: Floats, found: Fit) -> float:
    """By how much the residuals of a fit are too small, on column 0; at least 1.

    Args:
        a: ``(m, n)`` design with zero mean.
        y: ``(m,)`` values of column 0 with the mean taken off, if the fit has an intercept; NaN =
            unknown.
        found: The fit, with its predictions of rows left out.
    """
    left_out = y - (found.held_out - found.intercepts[0])
    known = np.isfinite(left_out)
    if not known.any():
        return 1.0
    fitted = y[known] - a[known] @ found.weights[0]
    return max(1.0, float((left_out[known] ** 2).sum() / max((fitted**2).sum(), 1e-300)))


def of_blend(a: Floats, y: Floats, found: Blend, *, intercept: bool) -> tuple[Floats, Floats, str]:
    """Estimates with standard errors, by least squares or by the debiased fit.

    Above 1.3 pairs per unit the way with the smaller errors on column 0 is taken for all columns
    that know the same rows; below, and without pairs, least squares is not to be had. Where few
    units matter the debiased fit has the smaller errors.

    Args:
        a: ``(m, n)`` design, ``S - 1/2``.
        y: ``(m, c)`` values, or odd parts of pairs; NaN = unknown.
        found: Fit of the same rows.
        intercept: Whether it has one: without, rows are pairs.

    Returns:
        Estimates ``(c, n)``, standard errors ``(c, n)`` (NaN where there is none), and how they
        were found: ``"ols-hc3"`` or ``"debiased"``, of column 0.
    """
    estimates = np.full(found.weights.shape, np.nan)
    errors = np.full(found.weights.shape, np.nan)
    way = "debiased"
    for rows, columns in columns_alike(y):
        if rows.sum() < 2:
            continue
        design, block = a[rows], y[np.ix_(rows, columns)]
        if intercept:
            design, block = design - design.mean(axis=0), block - block.mean(axis=0)
        freedom = found.freedom[columns]
        # Shares and penalties were chosen on these rows too, which the degrees of freedom do not
        # count; without the factor intervals of 20 units cover 86 % instead of 90 %.
        factor = len(block) / np.maximum(len(block) - freedom, 0.1 * len(block))
        best = debiased(design, block, found.weights[columns], factor, freedom)
        if not intercept and rows.sum() > OLS_PAIRS * a.shape[1]:
            plain = ols_hc3(design, block)
            if (plain[1][0] ** 2).mean() <= (best[1][0] ** 2).mean():
                best = plain
                way = "ols-hc3" if columns[0] == 0 else way
        estimates[columns], errors[columns] = best
    return estimates, errors, way
