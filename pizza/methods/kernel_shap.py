# SPDX-License-Identifier: Apache-2.0
"""KernelSHAP: Shapley values as the weighted least-squares fit of a linear game."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Scores
from pizza.methods._designs.complement_pairs import ComplementPairs
from pizza.methods._designs.enumeration import Floats
from pizza.methods._designs.found_pairs import find_pairs
from pizza.methods._designs.pairs import kernel_masses
from pizza.methods._fits.pair_scores import scores_of_pairs
from pizza.methods._fits.paired import fit_pairs


class KernelShap(ComplementPairs):
    """``argmin over phi of sum_S k(S) (v(S) - v(none) - sum_{i in S} phi_i)^2``.

    Subject to ``sum phi = v(all) - v(none)``, with ``k(S) = (n-1) / (C(n,s) s (n-s))``
    (Lundberg & Lee 2017, theorem 2). Coalitions are drawn from the kernel, each with its complement
    (Covert & Lee 2021), none twice; sizes that the budget covers, the smallest and largest first,
    are enumerated. With all coalitions the scores are the exact Shapley values; with any number
    they sum to ``v(all) - v(none)``.

    From fewer than about three coalitions per unit the fit follows the noise: 'context-cite' needs
    fewer. A pair of which one value is not defined is left out of that column.

    Args:
        samples: Coalitions to evaluate, the empty one included; at least 2 per unit less 1.
            ``None``: what the budget allows, 8 per unit (128 at least) without one.

    Cost: ``samples`` calls (one less when even), all in one round.
    """

    name = "kernel-shap"
    advice = "use larger units (sentence, paragraph), or 'context-cite'."

    def fewest(self, n_units: int) -> int:
        """Enough pairs to determine all units."""
        return 2 * n_units - 1

    def size_masses(self, n_units: int) -> Floats:
        """As much of each size as the kernel holds."""
        return kernel_masses(n_units)

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """From complement pairs: of this design, of uniform sizes, or of any that has all sizes."""
        n = game.n_units
        found = find_pairs(game, coalitions, values, who=self.name, fewest=n - 1)
        return scores_of_pairs(game, found, fit_pairs(found.pairs, found.measured))
