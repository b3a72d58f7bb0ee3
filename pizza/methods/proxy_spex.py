# SPDX-License-Identifier: Apache-2.0
"""ProxySPEX: interactions of any order, read off boosted trees."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Estimator, Game, Plan, Scores
from pizza.errors import ConfigError
from pizza.methods._designs.budget import check_samples, coalitions_to_spend
from pizza.methods._designs.enumeration import every
from pizza.methods._designs.given import halves
from pizza.methods._designs.halves import Draws, usual
from pizza.methods._fits import model_noise
from pizza.methods._fits.pair_terms import mains_and_pairs
from pizza.methods._fits.regression import fit, plain

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Term = tuple[int, ...]
Terms = dict[Term, float]
"""Banzhaf interaction indices of sets of units."""

_FEWEST = 64
"""A tree splits leaves of 40 coalitions or more."""

_MOST_UNITS = 1000
"""shapiq counts all coalitions of a size in floats, which end a little further on."""

_LISTED = 50
_INSTALL = "pip install 'pizza-attribution[shapiq]'"


class ProxySpex(Estimator):
    """Main effects and interactions of any order, from a forest that predicts the values.

    Butler et al. 2025: boosted trees are fitted to random halves, with cross-validated depth,
    number and learning rate; a tree is a short sum of products of signs (its Fourier transform,
    Gorji et al. 2024), and the products that hold 95 % of the energy of the forest's are fitted
    again by ridge regression. This is the regression of shapiq 1.4 (``shapiq.ProxySPEX``, with
    LightGBM) on the coalitions that were measured here; shapiq would draw its own.

    The coefficient F of a product over a set T is told as ``(-2)^|T| F``: the Banzhaf value of one
    unit, the Banzhaf interaction index of several (Grabisch & Roubens 1999). Scores are those of
    single units; ``details["interactions"]`` has the others, strongest first, 50 at most. The whole
    output decides which terms there are; other columns are fitted to the same terms. A unit in no
    term scores 0. With all coalitions the indices are exact, and no forest is grown.

    For pairs, use 'pairwise-interactions': on the same calls (14 relevant units; 20 units and 320
    calls, 100 and 256, 100 and 512) it found 78, 75 and 85 % of the ten strongest pairs and this
    70, 58 and 70 %, in 0.4 to 0.9 s of computing instead of 6 to 24. At 20 units and 160 calls the
    forest was ahead, 58 to 53 %. This is for triples and higher orders.

    Args:
        samples: Coalitions to evaluate. ``None``: what the budget allows, 10 per unit (64 to 512)
            without one.

    Cost: ``samples`` calls, all in one round; then up to half a minute of computing.
    """

    def __init__(self, samples: int | None = None) -> None:
        self.samples = check_samples(samples)

    def calls(self, n_units: int) -> tuple[int, int]:
        """64 at least, every coalition at most."""
        most = 2**n_units - 1
        if self.samples is not None:
            return min(self.samples, most), min(self.samples, most)
        return min(_FEWEST, most), most

    def plan(self, game: Game) -> Plan:
        """One round of random halves, the same as those of the other methods on halves."""
        n = game.n_units
        _check_units(n)
        spend = coalitions_to_spend(
            game, self.samples, fewest=_FEWEST, default=usual(n), who="proxy-spex"
        )
        if spend == 2**n - 1:
            rows = every(n)
        else:
            _shapiq()
            rows = Draws(n, np.random.default_rng(game.seed)).halves(spend)
        return self.estimate(game, rows, (yield rows))

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """From any random halves, in pairs or not; at least 64 of them."""
        n = game.n_units
        _check_units(n)
        rows, values, complete = halves(game, coalitions, values, who="proxy-spex")
        if complete:
            return _exact(game, rows, values)
        known = np.isfinite(values[:, 0])
        if 0 < known.sum() < _FEWEST:
            raise ConfigError(
                f"proxy-spex needs {_FEWEST} coalitions with a value for the whole output, and "
                f"{known.sum()} are there. Raise the budget, or use 'pairwise-interactions'."
            )
        terms = _grown(rows[known], values[known, 0], game.seed) if known.any() else {}
        scores = _other_columns(rows, values, terms)
        scores[0] = [terms.get((unit,), 0.0) for unit in range(n)] if known.any() else np.nan
        return Scores(values=scores, details=_details(rows, values, terms))


def _check_units(n: int) -> None:
    if n > _MOST_UNITS:
        raise ConfigError(
            f"proxy-spex takes at most {_MOST_UNITS} units, not {n}: use larger units (sentence, "
            "paragraph), or 'pairwise-interactions'."
        )


def _shapiq() -> Any:
    try:
        import lightgbm  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
        import shapiq  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise ConfigError(
            f"proxy-spex needs the packages shapiq and lightgbm ({error}). Install them: {_INSTALL}"
        ) from error
    return shapiq


class _Given:
    """What stands in for shapiq's sampler: the coalitions that were measured."""

    def __init__(self, rows: Bools) -> None:
        self.coalitions_matrix = rows

    def sample(self, budget: int) -> None:
        """They are there already."""


def _grown(rows: Bools, values: Floats, seed: int) -> Terms:
    """The terms that shapiq finds; none where no tree splits."""
    if np.ptp(values) == 0:
        return {}
    shapiq = _shapiq()
    # All orders together are the Moebius transform, from which every index can be had.
    approximator = shapiq.ProxySPEX(n=rows.shape[1], index="FBII", random_state=seed)
    approximator._uniform_sampler = _Given(rows)
    level = values.mean()

    def measured(asked: Bools) -> Floats:
        if not np.array_equal(asked, rows):
            raise ConfigError(
                "this release of shapiq draws coalitions in a way that proxy-spex does not know. "
                f"Install the one that it does: {_INSTALL}"
            )
        result: Floats = values - level
        return result

    with warnings.catch_warnings():
        # Ties and constant folds of few rows; what comes of them is judged by cross-validation.
        warnings.simplefilter("ignore")
        try:
            found = approximator.approximate(len(rows), measured)
        except IndexError:
            # What its choice of terms ends with when there is nothing but the constant.
            return {}
    return banzhaf_interactions(found.dict_values)


def banzhaf_interactions(moebius: Mapping[Term, float]) -> Terms:
    """``I(T) = sum over R that contain T of 2^-(|R| - |T|) m(R)`` (Grabisch & Roubens 1999)."""
    result: Terms = {}
    for term, dividend in moebius.items():
        for size in range(1, len(term) + 1):
            for part in combinations(sorted(map(int, term)), size):
                result[part] = result.get(part, 0.0) + dividend * 0.5 ** (len(term) - size)
    # What is not in the model cancels, but for rounding.
    least = 1e-9 * max(map(abs, result.values()), default=0.0)
    return {term: float(value) for term, value in result.items() if abs(value) > least}


def _other_columns(rows: Bools, values: Floats, terms: Terms) -> Floats:
    """Main effects of every column, by ridge regression on the terms of the first."""
    n = rows.shape[1]
    chosen = list(terms) if len(terms) else [(unit,) for unit in range(n)]
    scores = np.zeros((values.shape[1], n))
    if values.shape[1] > 1:
        signs = rows - 0.5
        design = np.column_stack([signs[:, list(term)].prod(axis=1) for term in chosen])
        found = fit(design, values[:, 1:], kinds=("ridge",)).weights
        for place, term in enumerate(chosen):
            if len(term) == 1:
                scores[1:, term[0]] = found[:, place]
        scores[1:][np.isnan(found).any(axis=1)] = np.nan
    return scores


def _exact(game: Game, rows: Bools, values: Floats) -> Scores:
    """All Banzhaf interaction indices, by the Walsh-Hadamard transform of all values.

    A column with holes has the main effects and pairs of a regression on the values that are left.
    """
    n = game.n_units
    table: Floats = np.empty_like(values)
    table[rows @ (1 << np.arange(n))] = values
    for unit in range(n):
        pairs = table.reshape(-1, 2, 2**unit, values.shape[1])
        # Half the sum where the unit is in no term, the difference where it is in one.
        table = np.stack([pairs.mean(axis=1), pairs[:, 1] - pairs[:, 0]], axis=1)
    table = table.reshape(2**n, -1)
    lead = np.abs(table[:, 0])
    sizes = every(n).sum(axis=1)
    strong = np.flatnonzero((sizes > 1) & (lead > 1e-9 * lead.max(initial=0.0)))
    strong = strong[np.argsort(-lead[strong], kind="stable")][:_LISTED]
    terms = {tuple(np.flatnonzero(row).tolist()): 0.0 for row in every(n)[strong]}
    terms = dict(zip(terms, table[strong, 0].tolist(), strict=True))
    scores = table[1 << np.arange(n)].T.copy()
    details = _details(rows, values, terms)
    holes: Bools = np.asarray(np.isnan(values).any(axis=0))
    if holes.any():
        rest = mains_and_pairs(rows, values[:, holes])
        scores[holes] = rest.weights[:, :n]
        if holes[0]:
            details |= {"interactions": rest.listed(), "terms": n + len(rest.pairs)}
    half = 2.0 ** (n - 1)
    errors = model_noise.errors(game, np.full(n, (2 * half - 1) / half**2), 1 / half, scores)
    if errors is not None:
        errors[holes] = np.nan
    return Scores(values=scores, standard_errors=errors, details=details)


def _details(rows: Bools, values: Floats, terms: Terms) -> dict[str, Any]:
    listed = sorted((t for t in terms if len(t) > 1), key=lambda t: -abs(terms[t]))[:_LISTED]
    return {
        "index": "banzhaf",
        "samples": int((~rows.all(axis=1)).sum()),
        "undefined": int(np.isnan(values[:, 0]).sum()),
        "terms": len(terms),
        "interactions": [
            {"units": list(term), "value": plain(terms[term]), "standard_error": None}
            for term in listed
        ],
    }
