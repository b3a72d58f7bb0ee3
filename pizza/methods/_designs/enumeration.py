# SPDX-License-Identifier: Apache-2.0
"""All coalitions of a game, in the order of bits.

Numbers of coalitions are handled as logarithms: for 1000 units they do not fit into a float.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import lgamma

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Coalitions = NDArray[np.bool_]


def every(n_units: int) -> Coalitions:
    """All coalitions, ``(2^n_units, n_units)``: row r holds the units whose bit is set in r."""
    bits = np.arange(2**n_units)[:, None] >> np.arange(n_units)
    return (bits & 1).astype(bool)


def log_binomial(n: int, k: int) -> float:
    """Natural logarithm of "n choose k"."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def marginals(values: Floats, n_units: int) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """What each unit adds to every coalition without it.

    Args:
        values: ``(2^n_units, n_columns)`` in the order of `every`.
        n_units: Number of units.

    Yields:
        For each unit: sizes of the coalitions ``(2^(n-1),)``, gains ``(2^(n-1), n_columns)``.
    """
    sizes = np.zeros(1, dtype=np.int64)
    for _ in range(n_units - 1):
        sizes = np.concatenate([sizes, sizes + 1])
    for unit in range(n_units):
        split = values.reshape(-1, 2, 2**unit, values.shape[1])
        yield sizes, (split[:, 1] - split[:, 0]).reshape(len(sizes), -1)
