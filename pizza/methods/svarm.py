# SPDX-License-Identifier: Apache-2.0
"""Stratified SVARM: every value counts for every unit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pizza import coalition
from pizza.abc import Estimator, Game, Plan, Scores
from pizza.errors import ConfigError
from pizza.methods._designs.budget import check_samples, coalitions_to_spend
from pizza.methods._designs.enumeration import Coalitions, Floats, every, log_binomial
from pizza.methods._designs.given import neighbours_stand_together, without_full
from pizza.methods._fits import model_noise


class Svarm(Estimator):
    """Shapley values from mean values with and without each unit, by size (Stratified SVARM).

    ``phi_i = 1/n sum_s (mean of v(S), |S|=s+1, i in S  -  mean of v(S), |S|=s, i not in S)``
    (Kolpaczki et al. 2024, equation 5 and algorithm 2). No marginal contributions: a value updates
    one stratum of every unit. Sizes 0, 1, n-1 are enumerated; then, if the budget has room for it,
    a warm-up puts a value into every stratum; then sizes are drawn with chance ``1 / min(s, n-s)``
    and coalitions of a size uniformly, none twice. Unbiased once every stratum has a value; a
    stratum without one is taken to be like its size on average, so it says nothing about the unit.

    A first look rather than a precise one: regression ('leverage-shap') needs far fewer calls.
    Values that are not defined are left out of their strata.

    Args:
        samples: Coalitions to evaluate, the empty one included; at least 2 per unit plus 1.
            ``None``: what the budget allows, 16 per unit (256 at least) without one.

    Cost: ``samples`` calls, all in one round.
    """

    def __init__(self, samples: int | None = None) -> None:
        self.samples = check_samples(samples)

    def calls(self, n_units: int) -> tuple[int, int]:
        """The sizes 0, 1 and n-1 at least; all coalitions at most."""
        most = 2**n_units - 1
        fewest = min(2 * n_units + 1, most)
        if self.samples is None:
            return fewest, most
        exactly = max(fewest, min(self.samples, most))
        return exactly, exactly

    def plan(self, game: Game) -> Plan:
        """One round of everything."""
        n = game.n_units
        spend = coalitions_to_spend(
            game,
            self.samples,
            fewest=2 * n + 1,
            default=max(256, 16 * n),
            who="svarm",
            advice="use larger units (sentence, paragraph), or 'context-cite'.",
        )
        present = _draw(n, spend, np.random.default_rng(game.seed))
        return self.estimate(game, present, (yield present))

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """From random coalitions of all sizes, or with all of the sizes 0, 1 and n-1."""
        n = game.n_units
        present, values = without_full(game, coalitions, values, who="svarm")
        _check(present, n)
        scores = np.full((game.n_columns, n), np.nan)
        errors, squares = np.full_like(scores, np.nan), np.full_like(scores, np.nan)
        for column, v in enumerate(values.T):
            known = ~np.isnan(v)
            if known.any():
                found = _estimate(present[known], v[known], n)
                scores[column], errors[column], squares[column] = found
        errors_or_none = None if np.isnan(errors).all() else errors
        return Scores(
            values=scores,
            standard_errors=model_noise.added(
                errors_or_none, model_noise.variance(game, squares, 1 / n)
            ),
            details={
                "index": "shapley",
                "samples": len(present),
                "undefined": int(np.isnan(values[:, 0]).sum()),
            },
        )


def _check(present: Coalitions, n: int) -> None:
    """Refuse coalitions of which strata say nothing, or something else."""
    sizes = np.bincount(present.sum(axis=1), minlength=n)
    whole = sizes[0] and sizes[1 % n] >= n * (n > 1) and sizes[n - 1] >= n * (n > 1)
    if not whole and not sizes.all():
        raise ConfigError(
            "svarm needs the empty coalition and random ones of each size, or all of the sizes 1 "
            f"and {n - 1}; of {int((sizes == 0).sum())} sizes there are none (of "
            f"{int(sizes.argmin())}, for one). Measure with 'svarm', or use 'context-cite', which "
            "concludes from random halves."
        )
    if neighbours_stand_together(present):
        raise ConfigError(
            "svarm concludes from coalitions that are random within their size, and in these "
            "neighbouring units are present together. Measure with 'svarm'."
        )


def _draw(n: int, spend: int, rng: np.random.Generator) -> Coalitions:
    """Distinct coalitions, ``(spend, n)``."""
    singles = np.eye(n, dtype=bool)
    found: dict[bytes, Coalitions] = {}

    def add(rows: Coalitions) -> None:
        for row in rows:
            if len(found) < spend and not row.all():
                found.setdefault(coalition.key(row), row)

    add(np.zeros((1, n), dtype=bool))
    add(singles)
    add(~singles)
    sizes = np.arange(2, n - 1)
    if 2 * np.ceil(n / sizes).sum() <= spend - len(found):
        for size in sizes:
            chunks = _chunks(n, int(size), rng)
            add(chunks)
            add(~chunks)
    chances = 1 / np.minimum(sizes, n - sizes)
    if 2 * spend > 2.0 ** min(n, 64):
        # Most coalitions are wanted: the last ones would hardly ever be drawn.
        add(_all_in_random_order(n, chances, rng))
    while len(found) < spend:
        batch = rng.choice(sizes, min(256, spend - len(found)), p=chances / chances.sum())
        ranks = rng.random((len(batch), n)).argsort(axis=1).argsort(axis=1)
        add(ranks < batch[:, None])
    return np.array(list(found.values()))


def _chunks(n: int, size: int, rng: np.random.Generator) -> Coalitions:
    """The warm-up of a size: random coalitions that hold every unit at least once."""
    order = rng.permutation(n)
    starts = np.minimum(np.arange(0, n, size), n - size)
    present = np.zeros((len(starts), n), dtype=bool)
    for row, start in zip(present, starts, strict=True):
        row[order[start : start + size]] = True
    return present


def _all_in_random_order(n: int, chances: Floats, rng: np.random.Generator) -> Coalitions:
    """Every coalition once, as if drawn by size until all were found."""
    present = every(n)
    per_size = np.concatenate([np.ones(2), chances, np.ones(2)])[-n - 1 :]
    logs = np.array([log_binomial(n, s) for s in range(n + 1)])
    sizes = present.sum(axis=1)
    waits = rng.exponential(size=len(present)) * np.exp(logs[sizes]) / per_size[sizes]
    return present[np.argsort(waits)]


def _estimate(present: Coalitions, v: Floats, n: int) -> tuple[Floats, Floats, Floats]:
    """Scores, standard errors, and what these lack of squared coefficients, ``(n,)`` each.

    With ``b_s`` the mean value of size s, the definition is ``(v(all) - v(none)) / n`` plus 1/n
    times the sum over sizes of what the strata with and without the unit deviate from ``b_s``.
    """
    sizes = present.sum(axis=1)
    if sizes.min() > 0:
        return np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    scores = np.full(n, -v[sizes == 0].mean())
    variances = np.zeros(n)
    # Strata that were drawn whole have no spread to be found, but they have the model's noise.
    noise = np.ones(n)
    seen = np.unique(sizes)
    for size in seen[seen > 0]:
        rows = present[sizes == size].astype(float)
        values = v[sizes == size] - v[sizes == size].mean()
        for members, room, sign in (
            (rows, log_binomial(n - 1, size - 1), 1),
            (1 - rows, log_binomial(n - 1, size), -1),
        ):
            counts = members.sum(axis=0)
            means = (values @ members) / np.maximum(counts, 1)
            scores += sign * means
            rest = -np.expm1(np.minimum(0.0, np.log(np.maximum(counts, 1)) - room))
            squares = values**2 @ members - counts * means**2
            with np.errstate(divide="ignore", invalid="ignore"):
                spread = np.maximum(squares, 0.0) / (counts - 1) / counts * rest
            variances += np.where((rest < 1e-9) & (counts > 0), 0.0, spread)
            noise += np.where(counts > 0, (1 - rest) / np.maximum(counts, 1), 0.0)
    if len(seen) < n:
        variances[:] = np.nan  # sizes that were not drawn may hold anything
    return scores / n, np.sqrt(variances) / n, noise / n**2
