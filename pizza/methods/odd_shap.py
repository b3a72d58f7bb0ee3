# SPDX-License-Identifier: Apache-2.0
"""OddSHAP: a sparse Fourier model of the odd part of the game, units and triples."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Scores
from pizza.methods._designs.complement_pairs import ComplementPairs, shuffled
from pizza.methods._designs.enumeration import Floats
from pizza.methods._designs.found_pairs import find_pairs
from pizza.methods._designs.pairs import Pairs
from pizza.methods._fits.pair_scores import scores_of_pairs
from pizza.methods._fits.paired import Fit, fit_pairs

_FOLDS = 10
_STRONGEST = 16
"""Units among which triples are looked for: 560 triples."""

_PATIENCE = 10
"""Terms that a fold goes on for after its best number of them."""

_PER_TERM = 2
"""Pairs per term at least."""


class OddShap(ComplementPairs):
    """``v_odd(S) = sum over odd T of beta_T chi_T(S)``, ``phi_i = 2 sum_{T with i} beta_T / |T|``.

    ``v_odd(S) = (v(S) - v(complement)) / 2`` and ``chi_T(S)`` is the product over T of +1 for units
    of S and -1 for others. Only odd terms enter Shapley values, so complement pairs with sizes
    drawn uniformly see them and nothing else (Fumagalli et al. 2026, arXiv 2602.01399). The chosen
    terms are fitted by least squares with weights ``k(S) / P(S)`` under
    ``sum beta = (v(all) - v(none)) / 2``, so the scores sum to ``v(all) - v(none)``.

    The paper chooses terms by a forest of boosted trees. Here: units first, then triples among the
    16 strongest of them, each time the term that is most correlated with the residual, as many as
    10-fold cross-validation wants (at most one per two pairs). Terms of order 5 and more are not
    looked for. Each column has its own terms. Units that are in no term score 0: made for prompts
    of which few units matter. With all coalitions the scores are the exact Shapley values.

    There are no standard errors: they would not know of the choice of terms. A pair of which one
    value is not defined is left out of that column; one that does not know ``v(none)`` is NaN.

    Args:
        samples: Coalitions to evaluate, the empty one included; at least 3. ``None``: what the
            budget allows, 8 per unit (128 at least) without one.

    Cost: ``samples`` calls (one less when even), all in one round.
    """

    name = "odd-shap"

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """From complement pairs: of this design, of the kernel's, or of any that has all sizes."""
        n = game.n_units
        found = find_pairs(game, coalitions, values, who=self.name, total=True)
        pairs, measured = found.pairs, found.measured
        order = shuffled(game, len(pairs.present))
        # With every pair the terms of units alone give the exact values: nothing is to be chosen.
        whole = fit_pairs(pairs, measured) if pairs.complete else None
        values = np.full((game.n_columns, n), np.nan)
        n_terms = [0, 0]
        for column, odd in enumerate(measured.odd.T):
            known = ~np.isnan(odd)
            total = measured.total[column]
            if whole is not None and known.all():
                values[column] = whole.values[column]
            elif known.any() and not np.isnan(total):
                model = _choose(pairs.only(known), odd[known], total / 2, order[known])
                values[column] = model.shapley(n)
                if column == 0:
                    n_terms = [len(model.units), len(model.triples)]
        details = {"units_in_model": n_terms[0], "triples": n_terms[1]}
        return scores_of_pairs(game, found, Fit(values, None, details))


@dataclass(frozen=True, slots=True)
class _Model:
    """Fourier terms of order 1 and 3 and their coefficients, units first."""

    units: list[int]
    triples: list[tuple[int, ...]]
    beta: Floats

    def shapley(self, n: int) -> Floats:
        result = np.zeros(n)
        result[self.units] = 2 * self.beta[: len(self.units)]
        for triple, beta in zip(self.triples, self.beta[len(self.units) :], strict=True):
            result[list(triple)] += 2 * beta / 3
        return result


def _choose(pairs: Pairs, odd: Floats, half_total: float, order: NDArray[np.int64]) -> _Model:
    """Choose terms and fit them.

    The pair of the full and the empty coalition is one more equation. While terms are chosen it
    weighs as much as all others together; in the final fit it holds exactly.
    """
    signs = np.where(pairs.present, 1.0, -1.0)
    root = np.sqrt(np.append(pairs.mass, pairs.mass.sum()))
    target = np.append(odd, half_total) * root
    folds = np.append(order % _FOLDS, -1)
    most = max(1, len(odd) // _PER_TERM)

    def scaled(features: Floats) -> Floats:
        rows: Floats = root[:, None] * np.vstack([features, np.ones((1, features.shape[1]))])
        return rows

    units = _forward(scaled(signs), target, folds, min(most, signs.shape[1]))
    terms = signs[:, units]
    triples: list[tuple[int, ...]] = []
    if len(units) >= 3 and most > len(units):
        beta = np.linalg.lstsq(scaled(terms), target, rcond=None)[0]
        strongest = sorted(units[i] for i in np.argsort(-np.abs(beta))[:_STRONGEST])
        pool = list(combinations(strongest, 3))
        products: Floats = signs[:, pool].prod(axis=2)
        limit = min(most - len(units), len(pool))
        picked = _forward(scaled(products), target, folds, limit, scaled(terms))
        triples = [pool[i] for i in picked]
        terms = np.hstack([terms, products[:, picked]])
    if not terms.shape[1]:
        # Nothing is told apart: equal shares.
        units, terms = list(range(signs.shape[1])), signs
        return _Model(units, triples, np.full(len(units), half_total / len(units)))
    return _Model(units, triples, _fit_terms(terms, odd, root[:-1], half_total))


def _fit_terms(terms: Floats, odd: Floats, root: Floats, half_total: float) -> Floats:
    """Weighted least squares under ``sum beta = half_total``."""
    level = half_total / terms.shape[1]
    rest: Floats = root * (odd - level * terms.sum(axis=1))
    free: Floats = root[:, None] * (terms - terms.mean(axis=1, keepdims=True))
    result: Floats = np.linalg.lstsq(free, rest, rcond=None)[0] + level
    return result


def _forward(
    features: Floats,
    target: Floats,
    folds: NDArray[np.int64],
    most: int,
    base: Floats | None = None,
) -> list[int]:
    """Columns chosen one by one by correlation with the residual; how many, by cross-validation.

    Orthogonal matching pursuit (Pati, Rezaiifar & Krishnaprasad 1993), after the columns of
    ``base``. Rows of fold -1 are in every training set.
    """
    losses = np.zeros(most + 1)
    for fold in range(_FOLDS):
        held = folds == fold
        if held.any() and not held[:-1].all():
            losses += _Pursuit(features, target, base, ~held).path(most)
    pursuit = _Pursuit(features, target, base, np.ones(len(target), dtype=bool))
    while len(pursuit.chosen) < losses.argmin() and pursuit.step():
        pass
    return pursuit.chosen


class _Pursuit:
    """All columns are kept orthogonal to the chosen ones on the rows that are fitted.

    Rows that are held out are carried along: the residual there is the error of prediction.
    """

    def __init__(
        self, features: Floats, target: Floats, base: Floats | None, fitted: NDArray[np.bool_]
    ) -> None:
        # Fitted rows come first, so that they are a view.
        rows = np.argsort(~fitted, kind="stable")
        self.features = features[rows]
        self.residual = target[rows]
        self.chosen: list[int] = []
        self._fitted = slice(0, int(fitted.sum()))
        self._held = slice(self._fitted.stop, None)
        self._norms = (self.features[self._fitted] ** 2).sum(axis=0)
        self._floor = 1e-9 * self._norms
        rest = np.zeros((len(target), 0)) if base is None else base[rows]
        while rest.shape[1]:
            column, rest = rest[:, 0].copy(), rest[:, 1:]
            self._project_out(column, rest)
            self._take(column)

    def path(self, most: int) -> Floats:
        """Squared error on the held-out rows after 0, 1, ... ``most`` steps.

        It stops some steps after its minimum, and the last error stands for the rest.
        """
        losses = [self._loss()]
        while len(losses) <= min(most, int(np.argmin(losses)) + _PATIENCE) and self.step():
            losses.append(self._loss())
        return np.array(losses + losses[-1:] * (most + 1 - len(losses)))

    def step(self) -> bool:
        """Choose one more column; False when none is left that could help."""
        pull = np.abs(self.residual[self._fitted] @ self.features[self._fitted])
        gain = pull / np.sqrt(np.maximum(self._norms, self._floor))
        gain[self._norms <= self._floor] = 0.0
        gain[self.chosen] = 0.0
        best = int(gain.argmax())
        if gain[best] <= 0:
            return False
        self.chosen.append(best)
        self._take(self.features[:, best].copy())
        return True

    def _loss(self) -> float:
        return float(self.residual[self._held] @ self.residual[self._held])

    def _take(self, column: Floats) -> None:
        slopes, norm = self._project_out(column, self.features)
        self._norms = np.maximum(0.0, self._norms - slopes**2 * norm)
        self._project_out(column, self.residual[:, None])

    def _project_out(self, column: Floats, others: Floats) -> tuple[Floats, float]:
        """Make ``others`` orthogonal to a column; returns their slopes on it and its square."""
        part = column[self._fitted]
        norm = float(part @ part)
        slopes: Floats = part @ others[self._fitted] / max(norm, np.finfo(float).tiny)
        others -= np.outer(column, slopes)
        return slopes, norm
