# SPDX-License-Identifier: Apache-2.0
"""Regression MSR: a fitted linear game, and an unbiased estimate of what it misses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Scores
from pizza.methods._designs.complement_pairs import ComplementPairs, shuffled
from pizza.methods._designs.enumeration import Floats
from pizza.methods._designs.found_pairs import PairedValues, find_pairs
from pizza.methods._designs.pairs import Pairs
from pizza.methods._fits.pair_scores import scores_of_pairs
from pizza.methods._fits.paired import Fit

_FOLDS = 10
_STRENGTHS = np.append(0.0, np.geomspace(1e-3, 10.0, 9))
"""Ridge strengths that are tried, relative to the mean square of the design's singular values."""


class RegressionMsr(ComplementPairs):
    """``phi = phi(g) + mean_S [v(S) - g(S)] (p_{s-1} 1[i in S] - p_s 1[i not in S]) / D(S)``.

    Witter, Liu & Musco 2025, equation 5, with ``p_s = s! (n-s-1)! / n!`` and a linear surrogate g,
    whose Shapley values are its weights: ridge regression on the odd part (the only part that
    matters), its strength by generalised cross-validation. The correction reuses every sample for
    every unit (maximum sample reuse) and makes the estimate unbiased, whatever g is; residuals come
    from surrogates that were fitted without their pair (10 folds). Sizes are uniform, coalitions
    come with their complements, none twice. The scores sum to ``v(all) - v(none)``; with all
    coalitions they are the exact Shapley values.

    From fewer than about two coalitions per unit the correction is noisier than what it corrects,
    and the standard errors say so: 'context-cite' or 'odd-shap' need fewer.

    Standard errors hold what the choice of coalitions adds, given the surrogates. A pair of which
    one value is not defined is left out of that column, and the others of its size stand for it; a
    column that does not know ``v(none)`` is NaN.

    Args:
        samples: Coalitions to evaluate, the empty one included; at least 3. ``None``: what the
            budget allows, 8 per unit (128 at least) without one.

    Cost: ``samples`` calls (one less when even), all in one round; then ten singular value
    decompositions of their matrix.
    """

    name = "regression-msr"

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """From complement pairs: of this design, of the kernel's, or of any that has all sizes."""
        found = find_pairs(game, coalitions, values, who=self.name, total=True)
        folds = shuffled(game, len(found.pairs.present)) % _FOLDS
        fit = _fit(found.pairs, found.measured, folds)
        return scores_of_pairs(game, found, fit, _influence_and_share)


def _fit(pairs: Pairs, measured: PairedValues, folds: NDArray[np.int64]) -> Fit:
    n = pairs.present.shape[1]
    values = np.full((len(measured.total), n), np.nan)
    errors = np.full_like(values, np.nan)
    for columns, known, has_total in measured.columns():
        total = measured.total[columns]
        if n == 1:
            values[columns, 0], errors[columns, 0] = total, np.where(has_total, 0.0, np.nan)
        elif known.any() and has_total:
            odd = measured.odd[np.ix_(known, columns)]
            solved = _estimate(pairs.only(known), odd, total, folds[known])
            values[columns], errors[columns] = solved
    return Fit(values, None if np.isnan(errors).all() else errors)


def _estimate(
    pairs: Pairs, odd: Floats, total: Floats, folds: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Values and standard errors of columns that know the same pairs."""
    design = np.where(pairs.present, 0.5, -0.5)
    n = design.shape[1]
    residuals = np.empty_like(odd)
    if pairs.complete:
        # Nothing is left to estimate: any surrogate gives the exact values if it is one for all.
        weights = ridge(design, odd)
        residuals = odd - design @ weights
    else:
        each = []
        for fold in range(_FOLDS):
            held = folds == fold
            each.append(ridge(design[~held], odd[~held]))
            residuals[held] = odd[held] - design[held] @ each[-1]
        weights = np.mean(each, axis=0)
    influence = _influence(pairs)
    values = weights + influence.T @ residuals + (total - weights.sum(axis=0)) / n
    spared = np.sqrt(np.maximum(0.0, 1 - pairs.share))[:, None]
    errors = np.sqrt((influence**2).T @ (residuals * spared) ** 2)
    if len(design) < 2 and not pairs.complete:
        errors[:] = np.nan
    return values.T, errors.T


def _influence(pairs: Pairs) -> Floats:
    """What the correction weighs the odd part of each pair's residual with, ``(n_pairs, n)``."""
    # C(n,s) p_{s-1} = 1/s and C(n,s) p_s = 1/(n-s). Both members of a pair have one influence:
    # that of the complement has the opposite sign, and so has its residual's odd part. So a pair
    # counts twice, but for the middle size, of which a pair holds two coalitions.
    n = pairs.present.shape[1]
    size = pairs.present.sum(axis=1, keepdims=True)
    twice = np.where(2 * size == n, 1.0, 2.0) / pairs.expected[:, None]
    result: Floats = twice * np.where(pairs.present, 1 / size, -1 / (n - size))
    return result


def _influence_and_share(pairs: Pairs, constrained: bool) -> tuple[Floats, Floats]:
    """The same, and the equal shares of ``v(all) - v(none)``.

    The surrogates' own noise is left out: the correction takes it off again but for what is not
    drawn, and there the residuals have it.
    """
    n = pairs.present.shape[1]
    return _influence(pairs), np.full(n, constrained / n)


def ridge(design: Floats, targets: Floats) -> Floats:
    """Ridge regression without intercept, strength by generalised cross-validation per column.

    Golub, Heath & Wahba 1979: the strength that minimises ``||residual||^2 / (m - df)^2``.

    Args:
        design: ``(m, n)``.
        targets: ``(m, n_columns)``.

    Returns:
        Weights ``(n, n_columns)``; zeros for an empty design.
    """
    if not len(design):
        return np.zeros((design.shape[1], targets.shape[1]))
    u, singular, vt = np.linalg.svd(design, full_matrices=False)
    squares = singular**2
    seen = u.T @ targets
    outside = (targets**2).sum(axis=0) - (seen**2).sum(axis=0)
    strengths = _STRENGTHS * squares.mean()
    squares = np.maximum(squares, squares.max() * np.finfo(float).eps)
    shrunk = squares / (squares + strengths[:, None])
    misfit = np.maximum(outside, 0.0) + ((1 - shrunk) ** 2) @ seen**2
    free = (len(design) - shrunk.sum(axis=1))[:, None]
    # A fit through every point tells nothing about its error.
    score = np.where(free > 0.5, misfit / np.maximum(free, 0.5) ** 2, np.inf)
    best = score.argmin(axis=0)
    factors = singular[:, None] / (squares[:, None] + strengths[best])
    weights: Floats = vt.T @ (factors * seen)
    return weights
