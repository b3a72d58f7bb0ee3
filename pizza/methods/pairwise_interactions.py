# SPDX-License-Identifier: Apache-2.0
"""Pairwise interactions among the units that matter, from the same calls as the scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Scores
from pizza.errors import ConfigError
from pizza.methods._designs.given import halves
from pizza.methods._designs.random_halves import RandomHalves
from pizza.methods._fits import model_noise
from pizza.methods._fits.pair_terms import STRONGEST, Terms, mains_and_pairs
from pizza.methods._fits.regression import plain

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class PairwiseInteractions(RandomHalves):
    """Main effects and the pairs among the strongest of them, by one sparse regression.

    Fits ``v(S) = b + sum_i w_i (S_i - 1/2) + sum_ij w_ij (S_i - 1/2)(S_j - 1/2)`` to random halves,
    where those terms are orthogonal: ``w_i`` estimates the Banzhaf value of i and ``w_ij`` the
    Banzhaf interaction index of the pair (Grabisch & Roubens 1999; Hammer & Holzman 1992),
    positive when the two are worth more together than apart, negative when they repeat one
    another. Pairs are looked for among the ``strongest`` units by a first fit without pairs (strong
    heredity, Bien et al. 2013); a cross-validated LASSO then weighs all terms. No call is made
    beyond those for the scores.

    Scores are the main effects. ``details["interactions"]`` holds the pairs of the whole output,
    strongest first, with standard errors where there are at least 8 calls per relevant term (then
    scores and pairs are the one-step debiased estimates that the errors are of, else the LASSO's).

    Args:
        samples: Coalitions to evaluate. ``None``: what the budget allows, 10 per unit (64 to 512)
            without one.
        strongest: Units among which pairs are looked for, at least 2.

    Cost: ``samples`` calls, all in one round.
    """

    name = "pairwise-interactions"

    def __init__(self, samples: int | None = None, strongest: int = STRONGEST) -> None:
        super().__init__(samples)
        if strongest < 2:
            raise ConfigError(f"strongest must be at least 2, not {strongest!r}.")
        self.strongest = strongest

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """From any random halves, in pairs or not; at least 8 of them."""
        rows, values, complete = halves(game, coalitions, values, who=self.name)
        found = mains_and_pairs(rows, values, self.strongest, complete=complete)
        if complete:
            found = replace(found, errors=_noise_of_all(game, found, values))
        details: dict[str, Any] = {
            "index": "banzhaf",
            "samples": int((~rows.all(axis=1)).sum()),
            "undefined": int(np.isnan(values[:, 0]).sum()),
            "cv_r2": plain(found.cv_r2),
            "interactions": found.listed(),
        }
        errors = found.errors
        return Scores(
            values=found.weights[:, : game.n_units],
            standard_errors=None if errors is None else errors[:, : game.n_units],
            details=details,
        )


def _noise_of_all(game: Game, found: Terms, values: Floats) -> Floats | None:
    """Errors by the model's noise where terms are orthogonal: each weighs all values alike."""
    count = len(values)
    weight = np.repeat([2.0, 4.0], [game.n_units, len(found.pairs)]) / count
    errors = model_noise.errors(game, weight**2 * (count - 1), weight, found.weights)
    if errors is not None:
        errors[np.isnan(values).any(axis=0)] = np.nan
    return errors
