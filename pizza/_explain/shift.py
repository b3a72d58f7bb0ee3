# SPDX-License-Identifier: Apache-2.0
"""Whether two sets of answers are told apart: a permutation test of the energy distance.

Sampled answers to one prompt differ among themselves. Comparing the *distributions* of answers
with and without a unit, instead of one answer each, is the idea of distribution-based sensitivity
analysis (DBSA, Rauba et al. 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

import numpy as np

from pizza.abc import Metric
from pizza.completion import Completion

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EXACT = 5_000
_DRAWN = 2_000


def distances(metric: Metric, answers: Sequence[Completion]) -> NDArray[np.float64]:
    """How different the answers are from one another, ``(m, m)``, symmetric, zero diagonal.

    The metric's effect on the whole output with either one as the reference, averaged; NaN where
    it is not defined.
    """
    found = np.stack([np.asarray(metric.compare(answer, answers))[:, 0] for answer in answers])
    result: NDArray[np.float64] = (found + found.T) / 2
    np.fill_diagonal(result, 0.0)
    return result


def energy_distance(matrix: NDArray[np.float64], first: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Twice the mean distance between two groups, minus those within them.

    ``2 mean d(A, B) - mean d(A, A) - mean d(B, B)`` (Székely & Rizzo 2004, equation 5).

    Args:
        matrix: Distances ``(m, m)``.
        first: Groupings ``(p, m)``: True = in A.

    Returns:
        ``(p,)``.
    """
    a = first / first.sum(axis=1, keepdims=True)
    b = ~first / (~first).sum(axis=1, keepdims=True)
    between = ((a @ matrix) * b).sum(axis=1)
    within = ((a @ matrix) * a).sum(axis=1) + ((b @ matrix) * b).sum(axis=1)
    result: NDArray[np.float64] = 2 * between - within
    return result


def p_value(matrix: NDArray[np.float64], n_first: int, seed: int = 0) -> float:
    """The share of groupings that are at least as far apart as the one that was measured.

    All groupings into ``n_first`` and the rest where these are few, else 2,000 random ones and the
    measured one. NaN when a distance is not known, or a group is empty.

    Args:
        matrix: Distances ``(m, m)`` of the first group's answers, then the second's.
        n_first: How many belong to the first.
        seed: Of the random groupings.
    """
    m = len(matrix)
    if not 0 < n_first < m or np.isnan(matrix).any():
        return float("nan")
    measured = np.arange(m) < n_first
    if comb(m, n_first) <= _EXACT:
        chosen = np.array(list(combinations(range(m), n_first)))
        groupings = np.zeros((len(chosen), m), dtype=bool)
        np.put_along_axis(groupings, chosen, True, axis=1)
    else:
        rng = np.random.default_rng(seed)
        groupings = np.vstack([measured, rng.permuted(np.tile(measured, (_DRAWN, 1)), axis=1)])
    found = energy_distance(matrix, groupings)
    own = energy_distance(matrix, measured[None])[0]
    # Sums in another order differ in the last digits: equal is equal.
    return float((found >= own - 1e-9 * (1 + abs(own))).mean())
