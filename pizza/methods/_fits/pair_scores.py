# SPDX-License-Identifier: Apache-2.0
"""Scores from a regression on pairs, with the noise of the model in their errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pizza.abc import Game, Scores
from pizza.methods._designs.enumeration import Floats
from pizza.methods._designs.found_pairs import FoundPairs
from pizza.methods._designs.pairs import Pairs
from pizza.methods._fits import model_noise
from pizza.methods._fits.paired import Fit

Influence = Callable[[Pairs, bool], tuple[Floats, Floats]]
"""From pairs, and whether ``v(all) - v(none)`` is known: what scores weigh the odd part of each
pair with, ``(n_pairs, n_units)``, and what they weigh the total with, ``(n_units,)``."""


def influence_of_fit(pairs: Pairs, constrained: bool) -> tuple[Floats, Floats]:
    """The influence of pairs on the solution of `fit_pairs`."""
    n = pairs.present.shape[1]
    design = pairs.present - 0.5
    level = design.sum(axis=1)
    if constrained:
        design -= design.mean(axis=1, keepdims=True)
    root = np.sqrt(pairs.mass)[:, None]
    u, singular, vt = np.linalg.svd(root * design, full_matrices=False)
    kept = singular > singular.max(initial=0.0) * max(design.shape) * np.finfo(float).eps
    influence = (u[:, kept] * root) @ (vt[kept] / singular[kept, None])
    return influence, (1 - level @ influence) / n if constrained else np.zeros(n)


def scores_of_pairs(
    game: Game, found: FoundPairs, fit: Fit, influence: Influence = influence_of_fit
) -> Scores:
    """Scores of a fit to pairs, their errors with the noise that they lack, and how it was made."""
    present = found.pairs.present
    sizes, counts = np.unique(present.sum(axis=1), return_counts=True)
    whole = np.isin(sizes, present[found.pairs.share == 1.0].sum(axis=1))
    return Scores(
        values=fit.values,
        standard_errors=with_noise(game, found, fit.standard_errors, influence),
        details={
            "index": "shapley",
            "samples": 1 + 2 * len(present),
            "pairs_of_size": dict(zip(map(str, sizes.tolist()), counts.tolist(), strict=True)),
            "enumerated_sizes": sizes[whole].tolist(),
            "undefined_pairs": int(np.isnan(found.measured.odd[:, 0]).sum()),
            **fit.details,
            **found.details,
        },
    )


def with_noise(
    game: Game, found: FoundPairs, errors: Floats | None, influence: Influence = influence_of_fit
) -> Floats | None:
    """Add to standard errors over pairs what they lack where the model answers at random.

    They scale residuals by the share of each size that was not drawn: with all pairs there is
    nothing left that the choice of pairs could add. The noise in the residuals is scaled with them,
    though to draw all pairs does not remove it. So what was taken off is added again here, and the
    noise of ``v(all) - v(none)``, of which the residuals know nothing.
    """
    if errors is None or game.noise is None:
        return errors
    squares, of_all = np.zeros_like(errors), np.zeros_like(errors)
    for columns, known, has_total in found.measured.columns():
        of_total = np.full(game.n_units, has_total / game.n_units)
        if known.any():
            pairs = found.pairs.only(known)
            of_pairs, of_total = influence(pairs, has_total)
            # The odd part of a pair is half the difference of two values with the noise of one.
            squares[columns] = (pairs.share / 2) @ of_pairs**2
        squares[columns] += of_total**2
        of_all[columns] = of_total
    return model_noise.added(errors, model_noise.variance(game, squares, of_all))
