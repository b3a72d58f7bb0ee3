# SPDX-License-Identifier: Apache-2.0
"""Weighted least squares on complement pairs: what the regression estimators of Shapley share.

Only the odd part of a game, ``(v(S) - v(complement)) / 2``, enters its Shapley values (Fumagalli
et al. 2026), and in a weighted fit whose two members of a pair have one weight the even part drops
out by itself. So a pair is one equation, and a column uses the pairs of which it knows both values.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pizza.methods._designs.enumeration import Floats
from pizza.methods._designs.found_pairs import PairedValues
from pizza.methods._designs.pairs import Pairs

_RIDGE = 1e-3
_ENOUGH = 1.3
"""Pairs per unknown from which residuals say something about the error."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What a fit gives: ``(n_columns, n_units)`` twice, and details of its own."""

    values: Floats
    standard_errors: Floats | None
    details: dict[str, int] = field(default_factory=dict)


def fit_pairs(pairs: Pairs, measured: PairedValues, *, ridge_when_singular: bool = False) -> Fit:
    """Shapley values by weighted least squares with the efficiency constraint.

    ``min over phi: sum of mass_p (odd_p - sum_i (z_pi - 1/2) phi_i)^2`` subject to
    ``sum phi = total``; with too few pairs the solution nearest to equal shares. A column whose
    ``v(none)`` is not known goes without the constraint, and one without any pair is NaN.

    Standard errors are the sandwich over pairs with leverage-corrected residuals (HC3; MacKinnon &
    White 1985), and with the part of each size that was not drawn: what was enumerated adds none.
    They hold what the choice of coalitions adds to the error for this game as it is measured, not
    what a model adds that answers one prompt in many ways.
    """
    n = pairs.present.shape[1]
    values = np.full((len(measured.total), n), np.nan)
    errors = np.full_like(values, np.nan)
    ranks = []
    for columns, known, has_total in measured.columns():
        if n == 1 and has_total:
            values[columns, 0], errors[columns, 0] = measured.total[columns], 0.0
        if not known.any():
            continue
        level = measured.total[columns] / n if has_total else np.zeros(len(columns))
        odd = measured.odd[np.ix_(known, columns)]
        rank, *solved = _solve(pairs.only(known), odd, level, has_total, ridge_when_singular)
        values[columns], errors[columns] = solved
        ranks.append(rank)
    missing = np.isnan(errors).all()
    return Fit(values, None if missing else errors, {"rank": min(ranks, default=0)})


def _solve(
    pairs: Pairs, odd: Floats, level: Floats, constrained: bool, ridge: bool
) -> tuple[int, Floats, Floats]:
    """Rank, values and standard errors of columns that know the same pairs."""
    n = pairs.present.shape[1]
    design = pairs.present - 0.5
    odd = odd - design.sum(axis=1)[:, None] * level
    if constrained:
        # Deviations from equal shares sum to zero: the projection of the design does that.
        design -= design.mean(axis=1, keepdims=True)
    root = np.sqrt(pairs.mass)[:, None]
    u, singular, vt = np.linalg.svd(root * design, full_matrices=False)
    kept = singular > singular.max(initial=0.0) * max(design.shape) * np.finfo(float).eps
    rank, unknowns = int(kept.sum()), n - constrained
    u, singular, vt = u[:, kept], singular[kept], vt[kept]
    inverse = 1 / singular
    if ridge and rank < unknowns and 2 * len(design) + 1 <= 3 * n:
        inverse = singular / (singular**2 + _RIDGE)
    values = (vt.T * inverse) @ (u.T @ (root * odd)) + level
    errors = np.full((len(level), n), np.nan)
    if len(design) >= _ENOUGH * unknowns and rank == unknowns:
        errors = _sandwich(
            pairs.share, root * (odd - design @ (values - level)), u, vt / singular[:, None]
        )
    elif pairs.complete:
        errors = np.zeros_like(errors)
    return rank, values.T, errors


def _sandwich(share: Floats, residuals: Floats, u: Floats, back: Floats) -> Floats:
    """HC3 standard errors, ``(n_columns, n_units)``."""
    leverage = (u**2).sum(axis=1)
    scores = residuals / np.maximum(1 - leverage, 1e-6)[:, None]
    scores *= np.sqrt(1 - share)[:, None]
    influence = (u @ back) ** 2
    result: Floats = np.sqrt((scores**2).T @ influence)
    return result
