# SPDX-License-Identifier: Apache-2.0
"""Faith-Shap: the game of main effects and pairs that is nearest in Shapley's weights."""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Scores
from pizza.methods._designs.complement_pairs import ComplementPairs
from pizza.methods._designs.enumeration import every
from pizza.methods._designs.found_pairs import find_pairs
from pizza.methods._designs.pairs import Pairs
from pizza.methods._fits.penalties import Floats
from pizza.methods._fits.regression import columns_alike, fit, plain

_FEWEST = 9
_LISTED = 50
_STRONGEST = 12
_ROWS_PER_TERM = 6
"""With so many coalitions per term all pairs are fitted, without a choice."""

_ROWS_PER_CHOSEN = 4

_LARGEST = 16
"""Units of which the exact sums over supersets are taken at most."""

Pair = tuple[int, int]


class FaithShap(ComplementPairs):
    """``min sum_S k(S) (v(S) - e_0 - sum_{i in S} e_i - sum_{ij in S} e_ij)^2``.

    k is Shapley's kernel. The faithful Shapley interaction index of order 2 (Tsai, Yeh & Ravikumar
    2023): like KernelSHAP, with pairs; ``k(none) = k(all) = infinity``, so main effects and pairs
    together sum to ``v(all) - v(none)``. Scores are the main effects ``e_i``.
    ``details["interactions"]`` has the pairs, strongest first, 50 at most: positive when two units
    are worth more together, negative when one repeats the other.

    With all coalitions (at most 16 units) the index is exact, from the dividends of the game (the
    paper's closed form). From complement pairs of uniform sizes it is the weighted least-squares
    fit of all pairs, given six coalitions per term: what ``shapiq.RegressionFSII`` solves, on
    coalitions that 'leverage-shap' and others can use as well. With fewer that fit follows the
    noise, and near one per term it is lost (relative squared error of pairs at 20 units and 320
    calls: 909). Here a cross-validated LASSO on the whole output then chooses main effects and
    pairs among the 12 strongest units, and the chosen ones are fitted (0.07). Other columns are
    fitted to the same terms.

    There are no standard errors. A value that is not defined is left out of its column; a column
    that does not know ``v(none)`` is NaN.

    Args:
        samples: Coalitions to evaluate, the empty one included; at least 9. ``None``: what the
            budget allows, 8 per unit (128 at least) without one.

    Cost: ``samples`` calls (one less when even), all in one round.
    """

    name = "faith-shap"

    def fewest(self, n_units: int) -> int:
        """The empty coalition and four pairs."""
        return _FEWEST

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """From complement pairs: of this design, of the kernel's, or of any that has all sizes."""
        n = game.n_units
        found = find_pairs(
            game, coalitions, values, who=self.name, fewest=(_FEWEST - 1) // 2, total=True
        )
        scores = np.full((game.n_columns, n), np.nan)
        interactions: list[dict[str, Any]] = []
        exact = np.zeros(game.n_columns, dtype=bool)
        if n <= _LARGEST and len(found.values) == 2**n - 1:
            exact = np.asarray(np.isfinite(found.values).all(axis=0))
        for columns, solve in ((exact, _exact), (~exact, _fitted)):
            if columns.any():
                pairs, weights = solve(found.pairs, found.values[:, columns])
                scores[columns] = weights[:, :n]
                if columns[0]:
                    interactions = _listed(pairs, weights[0, n:])
        details: dict[str, Any] = {
            "index": "faith-shap",
            "samples": len(found.values),
            "undefined": int(np.isnan(found.values[:, 0]).sum()),
            "exact": bool(exact[0]),
            "interactions": interactions,
            **found.details,
        }
        return Scores(values=scores, details=details)


def _listed(pairs: list[Pair], weights: Floats) -> list[dict[str, Any]]:
    order = np.argsort(-np.abs(np.nan_to_num(weights)), kind="stable")[:_LISTED]
    return [
        {"units": list(pairs[i]), "value": plain(weights[i]), "standard_error": None} for i in order
    ]


def _exact(drawn: Pairs, values: Floats) -> tuple[list[Pair], Floats]:
    """Pairs, and the index of units and pairs ``(n_columns, n_units + n_pairs)``.

    With l = 2 the largest order and m the dividends, ``e_S = m_S + (-1)^(l - |S|) |S| / (l + |S|)
    C(l, |S|) sum over T that contain S, |T| > l, of C(|T|-1, l) / C(|T|+l-1, l+|S|) m_T``.
    """
    n = drawn.present.shape[1]
    # The full coalition has the value 0.
    table = np.zeros((2**n, values.shape[1]))
    table[drawn.round() @ (1 << np.arange(n))] = values
    for unit in range(n):
        split = table.reshape(-1, 2, 2**unit, values.shape[1])
        split[:, 1] -= split[:, 0]
    sizes = every(n).sum(axis=1)
    pairs = list(combinations(range(n), 2))
    terms = np.array([1 << a for a in range(n)] + [(1 << a) + (1 << b) for a, b in pairs])
    weights = table[terms]
    for size in (1, 2):
        shares = [comb(t - 1, 2) / comb(t + 1, 2 + size) if t > 2 else 0.0 for t in range(n + 1)]
        above = table * np.array(shares)[sizes][:, None]
        for unit in range(n):
            split = above.reshape(-1, 2, 2**unit, values.shape[1])
            split[:, 0] += split[:, 1]
        here = sizes[terms] == size
        factor = (-1) ** (2 - size) * size / (2 + size) * comb(2, size)
        weights[here] += factor * above[terms[here]]
    return pairs, weights.T


def _fitted(drawn: Pairs, values: Floats) -> tuple[list[Pair], Floats]:
    """The same from a weighted least-squares fit that is exact for none and all units."""
    rows, none = drawn.round()[1:], values[0]
    n = rows.shape[1]
    mass = np.tile(drawn.mass, 2)
    signs: Floats = rows.astype(np.float64) - 0.5
    n_pairs = n * (n - 1) // 2
    if len(rows) >= _ROWS_PER_TERM * (n + n_pairs):
        units, pairs = list(range(n)), list(combinations(range(n), 2))
    else:
        units, pairs = _chosen(signs, values[1:], mass)
    weights = np.full((values.shape[1], n + len(pairs)), np.nan)
    design = _design(signs, units, pairs)
    corners = _design(np.array([[0.5], [-0.5]]).repeat(n, axis=1), units, pairs)
    columns_of = np.array([*units, *range(n, n + len(pairs))], dtype=np.intp)
    for known, columns in columns_alike(values[1:]):
        columns = columns[np.isfinite(none[columns])]
        if not len(columns) or not (known.any() or n == 1):
            continue
        weights[columns] = 0.0
        ends = np.vstack([np.zeros(len(columns)), none[columns]])
        if not units:
            # Nothing is told apart: equal shares.
            weights[columns] = (-ends[1] / n)[:, None]
            continue
        y = values[1:][np.ix_(known, columns)]
        solved = _constrained(design[known], y, mass[known], corners, ends)
        weights[np.ix_(columns, columns_of)] = solved[1:].T
    # From products of +-1/2 to products of 0 and 1.
    for place, (a, b) in enumerate(pairs):
        weights[:, [a, b]] -= weights[:, [n + place]] / 2
    return pairs, weights


def _design(signs: Floats, units: list[int], pairs: list[Pair]) -> Floats:
    products = [signs[:, a] * signs[:, b] for a, b in pairs]
    result: Floats = np.column_stack([np.ones(len(signs)), signs[:, units], *products])
    return result


def _chosen(signs: Floats, values: Floats, mass: Floats) -> tuple[list[int], list[Pair]]:
    """Units and pairs that predict the first column; a pair's units are always among the units."""
    n = signs.shape[1]
    lead = values[:, :1]
    mains = np.abs(np.nan_to_num(fit(signs, lead, kinds=("lasso",), row_weights=mass).weights[0]))
    strongest = sorted(np.argsort(-mains, kind="stable")[:_STRONGEST].tolist())
    pool = list(combinations(strongest, 2))
    design = _design(signs, list(range(n)), pool)[:, 1:]
    found = np.nan_to_num(fit(design, lead, kinds=("lasso",), row_weights=mass).weights[0])
    order = np.argsort(-np.abs(found), kind="stable")[: len(signs) // _ROWS_PER_CHOSEN]
    pairs = [pool[i - n] for i in sorted(order.tolist()) if i >= n and found[i]]
    units = {int(i) for i in order if i < n and found[i]} | {unit for p in pairs for unit in p}
    return sorted(units), pairs


def _constrained(design: Floats, y: Floats, mass: Floats, corners: Floats, ends: Floats) -> Floats:
    """``min ||design x - y||`` weighted by mass, subject to ``corners x = ends``."""
    start = np.linalg.lstsq(corners, ends, rcond=None)[0]
    free = np.linalg.svd(corners)[2][2:].T
    root = np.sqrt(mass)[:, None]
    moves = np.linalg.lstsq(root * (design @ free), root * (y - design @ start), rcond=None)[0]
    result: Floats = start + free @ moves
    return result
