# SPDX-License-Identifier: Apache-2.0
"""Paired sparse SHAP: Shapley values of the few units that matter, from few calls."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Scores
from pizza.methods._designs.complement_pairs import ComplementPairs
from pizza.methods._designs.found_pairs import FoundPairs, find_pairs
from pizza.methods._fits.pair_scores import with_noise
from pizza.methods._fits.paired import fit_pairs
from pizza.methods._fits.quality import quality, warned
from pizza.methods._fits.regression import fit

Floats = NDArray[np.float64]

_FEWEST = 9


class PairedSparseShap(ComplementPairs):
    """Shapley values by a sparse regression on complement pairs, made efficient.

    Coalitions have uniformly distributed sizes and come with their complements, as in Leverage SHAP
    (Musco & Witter 2025); only the odd part ``Y = (v(S) - v(not S)) / 2`` is fitted, on
    ``A = S - 1/2``, with the Shapley kernel over the drawing probability as row weights. A LASSO,
    cross-validated on the whole output, selects units; a ridge regression of those alone, with
    ``sum phi = v(all) - v(none)``, says how much each has. Units that were not selected score 0.

    Where few of many units matter that needs a fraction of the calls of 'kernel-shap'. With all
    coalitions the scores are the exact Shapley values. There are no standard errors: those of a
    refit after a selection on the same calls would be too small.

    A column whose ``v(none)`` is not defined goes without the constraint; a pair of which one value
    is not defined is left out of that column.

    Args:
        samples: Coalitions to evaluate, the empty one included; at least 9. ``None``: what the
            budget allows, 4 per unit (128 at least) without one. Below 2.5 per unit the weights of
            'context-cite' are nearer to the Shapley values.

    Cost: ``samples`` calls (one less when even), all in one round.
    """

    name = "paired-sparse-shap"
    per_unit = 4

    def fewest(self, n_units: int) -> int:
        """The empty coalition and four pairs."""
        return _FEWEST

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """From complement pairs: of this design, of the kernel's, or of any that has all sizes."""
        found = find_pairs(game, coalitions, values, who=self.name, fewest=(_FEWEST - 1) // 2)
        pairs, measured = found.pairs, found.measured
        details: dict[str, Any] = {
            "index": "shapley",
            "samples": 2 * len(pairs.present) + 1,
            "undefined": int(np.isnan(measured.odd[:, 0]).sum()),
            **found.details,
        }
        if pairs.complete:
            whole = fit_pairs(pairs, measured)
            errors = with_noise(game, found, whole.standard_errors)
            return Scores(values=whole.values, standard_errors=errors, details=details)
        scores = _sparse(found, details)
        return Scores(values=scores, details=details, warnings=warned(details))


def _sparse(found: FoundPairs, details: dict[str, Any]) -> Floats:
    """Select on all columns at once, then refit each on its own selection."""
    pairs, measured = found.pairs, found.measured
    first, second = np.split(found.values[1:], 2)
    order = np.random.default_rng(0).permutation(len(pairs.present))
    # Pairs come sorted by size; cross-validation wants each fold to have all of them.
    design = pairs.present[order].astype(np.float64) - 0.5
    odd, mass = measured.odd[order], pairs.mass[order]
    selection = fit(design, odd, kinds=("lasso",), row_weights=mass, intercept=False)
    measured_here = np.concatenate([first[order, 0], second[order, 0]])
    details["quality"] = quality(selection.held_out, measured_here, selection.cv_r2, paired=True)
    scores = np.full((odd.shape[1], design.shape[1]), np.nan)
    for column, weights in enumerate(selection.weights):
        known = np.isfinite(odd[:, column])
        if not known.any():
            continue
        chosen = np.flatnonzero(weights)
        if column == 0:
            details["selected"] = len(chosen)
        scores[column] = _refit(
            design[known], odd[known, column], mass[known], chosen, measured.total[column]
        )
    return scores


def _refit(
    design: Floats, odd: Floats, mass: Floats, chosen: NDArray[np.intp], total: float
) -> Floats:
    """Ridge on the chosen units under ``sum = total``; without a selection, equal shares."""
    n = design.shape[1]
    if not len(chosen):
        return np.full(n, 0.0 if np.isnan(total) else total / n)
    inner = design[:, chosen]
    level = 0.0
    if not np.isnan(total):
        # Deviations from equal shares sum to zero; the projection of the design does that.
        level = total / len(chosen)
        odd = odd - inner.sum(axis=1) * level
        inner = inner - inner.mean(axis=1, keepdims=True)
    found = fit(inner, odd[:, None], kinds=("ridge",), row_weights=mass, intercept=False)
    deviations = found.weights[0]
    if not np.isnan(total):
        deviations = deviations - deviations.mean()
    scores = np.zeros(n)
    scores[chosen] = level + deviations
    return scores
