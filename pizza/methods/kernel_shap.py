# SPDX-License-Identifier: Apache-2.0
"""KernelSHAP: Shapley values as the weighted least-squares fit of a linear game."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Estimator, Game, Plan, Scores
from pizza.methods._designs.budget import check_samples, coalitions_to_spend, paired_calls
from pizza.methods._designs.found_pairs import find_pairs
from pizza.methods._designs.pairs import draw_pairs, kernel_masses
from pizza.methods._fits.pair_scores import scores_of_pairs
from pizza.methods._fits.paired import fit_pairs


class KernelShap(Estimator):
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

    def __init__(self, samples: int | None = None) -> None:
        self.samples = check_samples(samples)

    def calls(self, n_units: int) -> tuple[int, int]:
        """Enough pairs to determine all units; all coalitions at most."""
        return paired_calls(n_units, self.samples, fewest=2 * n_units - 1)

    def plan(self, game: Game) -> Plan:
        """One round of the empty coalition and the pairs."""
        n = game.n_units
        spend = coalitions_to_spend(
            game,
            self.samples,
            fewest=2 * n - 1,
            default=max(128, 8 * n),
            who="kernel-shap",
            share=0.5,
            advice="use larger units (sentence, paragraph), or 'context-cite'.",
        )
        rng = np.random.default_rng(game.seed)
        pairs = draw_pairs(n, (spend - 1) // 2, kernel_masses(n), rng)
        rows = pairs.round()
        return self.estimate(game, rows, (yield rows))

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """From complement pairs: of this design, of uniform sizes, or of any that has all sizes."""
        n = game.n_units
        found = find_pairs(game, coalitions, values, who="kernel-shap", fewest=n - 1)
        return scores_of_pairs(game, found, fit_pairs(found.pairs, found.measured))
