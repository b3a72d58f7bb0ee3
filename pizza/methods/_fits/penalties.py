# SPDX-License-Identifier: Apache-2.0
"""LASSO and ridge on standardised coalitions, and the choice of their strength.

scikit-learn does the coordinate descent of the LASSO; ridge has a closed form, with which all
folds cost one decomposition.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Kind = Literal["lasso", "ridge"]

_MANY = 512
_ALL_BUT = 0.5
"""Share of the variance that other fits explain above which many rows need no ridge."""

FOLDS = 5
"""Parts that cross-validation leaves out in turn: a fifth of the calls each."""

TINY = 1e-12

_STEPS = 60
"""Penalties on the path of a LASSO, over two or three powers of ten."""

_STEP = 6
_PATIENCE = 9
"""Penalties without a smaller error after which the path ends."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """A design with zero mean and unit variance, times the root of the row weights."""

    x: Floats
    root: Floats
    mean: Floats
    scale: Floats
    intercept: bool

    def centre(self, y: Floats) -> tuple[Floats, Floats]:
        """``y`` (m, c) in the scaled problem, and the means that were taken off."""
        mean = self.root**2 @ y / len(y) if self.intercept else np.zeros(y.shape[1])
        return (y - mean) * self.root[:, None], mean

    def back(self, coefficients: Floats, mean: Floats) -> tuple[Floats, Floats]:
        """Weights (c, n) and intercepts in the units of the game."""
        weights = coefficients / self.scale
        return weights, mean - weights @ self.mean


def scaled_design(
    x: Floats, row_weights: Floats | None, intercept: bool, standardise: bool = True
) -> Scaled:
    m = len(x)
    w = np.ones(m) if row_weights is None else row_weights * (m / row_weights.sum())
    mean = w @ x / m if intercept else np.zeros(x.shape[1])
    centred = x - mean
    scale = np.sqrt(w @ centred**2 / m)
    # A unit that is in every coalition, or in none, has no weight to be found: it stays 0.
    scale[scale < TINY] = 1.0
    if not standardise:
        scale[:] = 1.0
    root = np.sqrt(w)
    centred *= root[:, None]
    centred /= scale
    return Scaled(centred, root, mean, scale, intercept)


def lasso_path(x: Floats, y: Floats, alphas: Floats, start: Floats | None = None) -> Floats:
    """LASSO coefficients ``(n_units, len(alphas))`` of a centred problem, alphas falling.

    ``start`` are coefficients near those of the first alpha.
    """
    from sklearn import config_context  # type: ignore[import-untyped,unused-ignore]
    from sklearn.linear_model import enet_path  # type: ignore[import-untyped,unused-ignore]

    with (
        warnings.catch_warnings(),
        config_context(
            # The fits are many and small: checking their input takes longer than they do.
            skip_parameter_validation=True,
            assume_finite=True,
        ),
    ):
        # At the small end of a path coordinate descent may stop short of its tolerance; what is
        # reported there is judged by cross-validation like everything else.
        warnings.simplefilter("ignore")
        result: Floats = enet_path(
            np.asfortranarray(x, dtype=np.float64),
            np.ascontiguousarray(y, dtype=np.float64),
            l1_ratio=1.0,
            alphas=alphas,
            coef_init=start,
            max_iter=2000,
            check_input=False,
        )[1]
    return result


def top_alpha(x: Floats, y: Floats) -> float:
    """The smallest alpha at which every coefficient is zero."""
    return float(np.abs(x.T @ y).max() / len(y))


def ridge_basis(x: Floats) -> tuple[Floats, Floats]:
    """Left singular vectors ``(m, r)`` and squared singular values ``(r,)`` of ``x``."""
    m, n = x.shape
    if m <= n:
        squares, left = np.linalg.eigh(x @ x.T)
        kept = squares > TINY * max(squares[-1], TINY)
        return left[:, kept], squares[kept]
    squares, right = np.linalg.eigh(x.T @ x)
    kept = squares > TINY * max(squares[-1], TINY)
    return x @ right[:, kept] / np.sqrt(squares[kept]), squares[kept]


def _ridge_penalties(n_units: int) -> Floats:
    # With n standardised weights that explain a share R2 of the variance, the best lambda is about
    # n (1 - R2) / R2.
    return n_units * np.geomspace(1e-6, 30.0, 16)


def ridge(x: Floats, y: Floats, penalty: float) -> Floats:
    """Ridge coefficients ``(c, n)`` of a centred problem, by the smaller of the two systems."""
    m, n = x.shape
    if penalty == 0:
        solved = np.linalg.lstsq(x, y, rcond=None)[0]
    elif n <= m:
        solved = _solve(x.T @ x + penalty * np.eye(n), x.T @ y)
    else:
        solved = x.T @ _solve(x @ x.T + penalty * np.eye(m), y)
    result: Floats = np.asarray(solved.T, dtype=np.float64)
    return result


def _solve(a: Floats, b: Floats) -> Floats:
    try:
        solved = np.linalg.solve(a, b)
    except np.linalg.LinAlgError:
        solved = np.linalg.lstsq(a, b, rcond=None)[0]
    return np.asarray(solved, dtype=np.float64)


def parts(m: int) -> NDArray[np.intp]:
    """The fold of each row. Rows are drawn at random, so turns are as good as a shuffle."""
    return np.arange(m) % max(2, min(FOLDS, m // 2))


def choose_lasso(
    x: Floats, y: Floats, weights: Floats | None, intercept: bool
) -> tuple[float, Floats]:
    """The best alpha over the spread, and predictions of rows left out.

    All folds go down the path together, and stop when the error has risen for a while: the small
    end, where most weights are nonzero and which no one wants, costs more than all the rest.
    """
    m, n = x.shape
    # With fewer rows than units the small end interpolates: slow to find, and never the best.
    decades = 3.0 if m > n else 2.0
    whole = scaled_design(x, weights, intercept)
    top = max(top_alpha(whole.x, whole.centre(y[:, None])[0][:, 0]), TINY)
    part = parts(m)
    folds = []
    for turn in range(part.max() + 1):
        train = part != turn
        scaled = scaled_design(x[train], None if weights is None else weights[train], intercept)
        target, mean = scaled.centre(y[train, None])
        # Coordinate descent reads columns.
        folds.append((part == turn, scaled, np.asfortranarray(scaled.x), target[:, 0], mean))
    starts: list[Floats | None] = [None] * len(folds)
    best, best_error, best_at = (1.0, y), np.inf, 0
    predictions = np.empty((m, _STEP))
    for begin in range(0, _STEPS, _STEP):
        alphas = top * 10.0 ** (-decades * np.arange(begin, begin + _STEP) / (_STEPS - 1))
        for turn, (test, scaled, columns, target, mean) in enumerate(folds):
            coefficients = lasso_path(columns, target, alphas, starts[turn])
            starts[turn] = coefficients[:, -1]
            w, offset = scaled.back(coefficients.T, mean)
            predictions[test] = x[test] @ w.T + offset
        errors = mean_square(y[:, None] - predictions, weights)
        here = int(errors.argmin())
        if errors[here] < best_error:
            best = (float(alphas[here]), predictions[:, here].copy())
            best_error, best_at = float(errors[here]), begin + here
        if begin + _STEP - best_at > _PATIENCE:
            break
    return best[0] / spread_of(y, weights, intercept), best[1]


def choose_ridge(
    x: Floats, y: Floats, weights: Floats | None, intercept: bool
) -> tuple[float, Floats]:
    """Left-out residuals are ``(I - H_BB)^-1 e_B`` for a block B of rows: exact, without refits."""
    m, n = x.shape
    scaled = scaled_design(x, weights, intercept)
    target = scaled.centre(y[:, None])[0][:, 0]
    left, squares = ridge_basis(scaled.x)
    coordinates = left.T @ target
    part = parts(m)
    best, best_error = (1.0, y), np.inf
    for penalty in _ridge_penalties(n):
        shrink = squares / (squares + penalty)
        residual = target - left @ (shrink * coordinates)
        for turn in range(part.max() + 1):
            rows = np.flatnonzero(part == turn)
            block = (left[rows] * shrink) @ left[rows].T
            if intercept:
                block += np.outer(scaled.root[rows], scaled.root[rows]) / m
            residual[rows] = _solve(np.eye(len(rows)) - block, residual[rows])
        residual /= scaled.root
        error = float(mean_square(residual[:, None], weights)[0])
        if error < best_error:
            best, best_error = (float(penalty), y - residual), error
    return best


def choose_ridge_too(m: int, r2: float) -> bool:
    """Whether ridge is worth trying after fits that explain ``r2`` of ``m`` rows left out.

    With many rows and a good fit its decomposition costs more than it gives.
    """
    return m < _MANY or r2 <= _ALL_BUT


def lead_of(y: Floats) -> tuple[int, NDArray[np.bool_]]:
    """The column of ``y`` (m, c) that chooses for all of them, and the rows that know it.

    It is column 0; one that is undefined everywhere cannot decide, then the best known one does.
    """
    known = np.isfinite(y)
    lead = 0 if known[:, 0].any() else int(known.sum(axis=0).argmax())
    return lead, known[:, lead]


def spread_to_explain(y: Floats, weights: Floats | None, intercept: bool) -> float:
    """The spread of ``y`` (m,), or 0 where rows left out cannot choose.

    So it is with fewer than four rows, and with a constant.
    """
    spread = spread_of(y, weights, intercept) if len(y) >= 4 else 0.0
    return spread if spread > TINY * max(1.0, np.abs(y).max(initial=0.0)) else 0.0


def mean_square(residuals: Floats, weights: Floats | None) -> Floats:
    result: Floats = np.average(residuals**2, axis=0, weights=weights)
    return result


def spread_of(y: Floats, weights: Floats | None, intercept: bool) -> float:
    centre = np.average(y, weights=weights) if intercept else 0.0
    return float(np.sqrt(np.average((y - centre) ** 2, weights=weights)))
