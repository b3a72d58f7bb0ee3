# SPDX-License-Identifier: Apache-2.0
"""C-LIME: a linear fit to the whole prompt less one or two units."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Method, Plan, Scores
from pizza.errors import ConfigError
from pizza.methods._designs.budget import check_samples, coalitions_to_spend
from pizza.methods._designs.given import finite
from pizza.methods._fits import model_noise
from pizza.methods._fits.regression import columns_alike, least_squares

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class CLime(Method):
    """Weights of a linear surrogate around the whole prompt (C-LIME of MExGen, Paes et al. 2024).

    Subsets of 0 to ``max_removed`` units are removed. Of the calls that are left, size k gets
    ``round(left / (max_removed + 1 - k))``: all its subsets, or distinct random ones. The subsets
    of each size share the same total weight, and the scores are minus the coefficients of a
    weighted least-squares fit on which units were removed.

    Like leave-one-out, which it averages with pairs, it measures what happens near the whole
    prompt: evidence that stands there twice scores near 0, however large the budget.

    Standard errors are those of the model's noise, where it was measured and no units were
    selected; what another draw of pairs would change is not in them.

    Args:
        samples: Coalitions to evaluate. ``None``: what the budget allows, at most 10 per unit.
        max_removed: K, at least 1.
        num_nonzeros: Keep only so many units, the first that least-angle regression takes in on
            the whole output, and fit again; the others score 0. ``None`` = all.

    Cost: ``samples`` calls, at least ``max_removed`` per unit (so that every unit is removed
    alone), all in one round.
    """

    def __init__(
        self, samples: int | None = None, max_removed: int = 2, num_nonzeros: int | None = None
    ) -> None:
        self.samples = check_samples(samples)
        if max_removed < 1:
            raise ConfigError(f"max_removed must be at least 1, not {max_removed!r}.")
        if num_nonzeros is not None and num_nonzeros < 1:
            raise ConfigError(f"num_nonzeros must be at least 1 or None, not {num_nonzeros!r}.")
        self.max_removed = max_removed
        self.num_nonzeros = num_nonzeros

    def calls(self, n_units: int) -> tuple[int, int]:
        """Every unit alone at least; every subset of the sizes at most."""
        least, most = self._least(n_units), self._most(n_units)
        if self.samples is not None:
            exactly = max(least, min(self.samples, most))
            return exactly, exactly
        return least, most

    def _most(self, n_units: int) -> int:
        return sum(comb(n_units, k) for k in range(1, min(self.max_removed, n_units) + 1))

    def plan(self, game: Game) -> Plan:
        """One round: the whole prompt (free), every unit removed alone, random larger subsets."""
        n = game.n_units
        least, most = self._least(n), self._most(n)
        spend = coalitions_to_spend(
            game,
            self.samples,
            fewest=least,
            default=10 * n,
            who="c-lime",
            advice="lower max_removed, use larger units, or the method 'context-cite'.",
        )
        if self.samples is None:
            spend = min(spend, max(10 * n, least))
        by_size = self._subsets(n, min(spend, most), np.random.default_rng(game.seed))
        removed = np.concatenate([np.zeros((1, n), dtype=bool), *by_size])
        values = finite((yield ~removed))
        sizes = [1, *map(len, by_size)]
        weights = np.concatenate([np.full(count, 1.0 / count) for count in sizes if count])
        scores = self._scores(removed, values, weights)
        return Scores(
            values=scores,
            standard_errors=self._errors(game, removed, values, weights, scores),
            details={
                "index": "leave-one-out",
                "samples": len(removed) - 1,
                "removed": sizes,
                "undefined": int(np.isnan(values[:, 0]).sum()),
            },
        )

    def _least(self, n_units: int) -> int:
        return min(self.max_removed * n_units, self._most(n_units))

    def _subsets(self, n: int, calls: int, rng: np.random.Generator) -> list[Bools]:
        left = calls
        largest = min(self.max_removed, n)
        counts = []
        for size in range(1, largest + 1):
            counts.append(min(round(left / (largest + 1 - size)), comb(n, size)))
            left -= counts[-1]
        for size in range(largest, 0, -1):
            # What the largest size has no use for goes to the smaller ones.
            more = min(left, comb(n, size) - counts[size - 1])
            counts[size - 1] += more
            left -= more
        return [subsets_of_size(n, size, count, rng) for size, count in enumerate(counts, start=1)]

    def _scores(self, removed: Bools, values: Floats, weights: Floats) -> Floats:
        chosen = np.arange(removed.shape[1])
        if self.num_nonzeros is not None and self.num_nonzeros < len(chosen):
            chosen = _first_by_lars(removed, values[:, 0], weights, self.num_nonzeros)
        scores = np.zeros((values.shape[1], removed.shape[1]))
        if len(chosen):
            # 0.0 -: no negative zeros.
            scores[:, chosen] = 0.0 - least_squares(removed[:, chosen], values, weights)
        scores[~np.isfinite(values).any(axis=0)] = np.nan
        return scores

    def _errors(
        self, game: Game, removed: Bools, values: Floats, weights: Floats, scores: Floats
    ) -> Floats | None:
        """Noise through the fit, whose solution is linear in the values."""
        if game.noise is None or self.num_nonzeros is not None:
            return None
        squares, of_all = np.zeros_like(scores), np.zeros_like(scores)
        for known, columns in columns_alike(values):
            if known.sum() < 2:
                continue
            w = weights[known] / weights[known].sum()
            design = removed[known] - w @ removed[known]
            root = np.sqrt(w)
            influence = np.linalg.pinv(design * root[:, None]) * root
            # Row 0 removes nothing: it is known in all columns.
            squares[columns] = (influence[:, 1:] ** 2).sum(axis=1)
            of_all[columns] = influence[:, 0]
        return model_noise.errors(game, squares, of_all, scores)


def subsets_of_size(n: int, size: int, wanted: int, rng: np.random.Generator) -> Bools:
    """``wanted`` distinct subsets of ``size`` units ``(wanted, n)``, or all if there are fewer."""
    total = comb(n, size)
    if total <= 4 * wanted:
        members = np.array(list(combinations(range(n), size)), dtype=np.int64)
        if total > wanted:
            members = members[np.sort(rng.choice(total, wanted, replace=False))]
    else:
        found: dict[tuple[int, ...], None] = {}
        while len(found) < wanted:
            found[tuple(sorted(rng.choice(n, size, replace=False).tolist()))] = None
        members = np.array(list(found), dtype=np.int64)
    rows = np.zeros((len(members), n), dtype=bool)
    np.put_along_axis(rows, members, values=True, axis=1)
    return rows


def _first_by_lars(
    removed: Bools, target: Floats, weights: Floats, wanted: int
) -> NDArray[np.intp]:
    """The units that least-angle regression of the weighted rows takes in first."""
    from sklearn.linear_model import lars_path  # type: ignore[import-untyped,unused-ignore]

    known = np.isfinite(target)
    x, y, w = removed[known].astype(float), target[known], weights[known]
    if not known.any():
        return np.arange(wanted)
    root = np.sqrt(w)[:, None]
    x = (x - np.average(x, axis=0, weights=w)) * root
    y = (y - np.average(y, weights=w)) * root[:, 0]
    active = lars_path(x, y, method="lar", max_iter=wanted)[1]
    return np.sort(np.asarray(active, dtype=np.intp))
