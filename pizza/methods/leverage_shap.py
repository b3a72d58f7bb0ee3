# SPDX-License-Identifier: Apache-2.0
"""Leverage SHAP: KernelSHAP's fit on coalitions drawn by how much they tell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Scores
from pizza.methods._designs.complement_pairs import ComplementPairs
from pizza.methods._designs.found_pairs import find_pairs
from pizza.methods._fits.pair_scores import scores_of_pairs
from pizza.methods._fits.paired import fit_pairs


class LeverageShap(ComplementPairs):
    """Shapley values by regression on coalitions drawn by their leverage scores.

    The leverage of a coalition in KernelSHAP's regression is ``1 / C(n,s)`` (Musco & Witter 2025,
    theorem 3.2): so sizes are uniform on 1..n-1. Coalitions come with their complements and none
    twice; each has weight ``k(S) / P(S)``, and ``phi = argmin ||W (Z P phi - b)|| + total / n``
    with ``P = I - 11'/n`` and ``b = v - v(none) - total s / n``. The error has a bound that
    KernelSHAP's lacks. With all coalitions the scores are the exact Shapley values; with any number
    they sum to ``v(all) - v(none)``.

    Only a singular system of at most 3 coalitions per unit gets a ridge (0.001). Near two
    coalitions per unit the fit follows the noise: spend either fewer, on 'context-cite', or more.
    A pair of which one value is not defined is left out of that column.

    Args:
        samples: Coalitions to evaluate, the empty one included; at least 3. ``None``: what the
            budget allows, 8 per unit (128 at least) without one.

    Cost: ``samples`` calls (one less when even), all in one round.
    """

    name = "leverage-shap"

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """From complement pairs: of this design, of the kernel's, or of any that has all sizes."""
        found = find_pairs(game, coalitions, values, who=self.name)
        fit = fit_pairs(found.pairs, found.measured, ridge_when_singular=True)
        return scores_of_pairs(game, found, fit)
