# SPDX-License-Identifier: Apache-2.0
"""How far an interval reaches, and which of many values are not 0."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from pizza.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def quantile(level: float) -> float:
    """How many standard errors a two-sided interval of that level reaches."""
    if not 0 < level < 1:
        raise ConfigError(f"the level of an interval is between 0 and 1, not {level!r}.")
    return NormalDist().inv_cdf((1 + level) / 2)


def holm(
    values: NDArray[np.float64], errors: NDArray[np.float64], level: float
) -> NDArray[np.bool_]:
    """Which values are not 0, so that with probability ``level`` no such statement is wrong.

    Holm's step-down procedure (Holm 1979) on two-sided normal tests.

    Args:
        values: ``(m,)``; NaN = not known.
        errors: Their standard errors.
        level: Between 0 and 1.
    """
    quantile(level)
    known = np.flatnonzero(np.isfinite(values) & np.isfinite(errors))
    result = np.zeros(len(values), dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(values[known] == 0, 0.0, np.abs(values[known]) / errors[known])
    order = np.argsort(-z, kind="stable")
    for rank, place in enumerate(order):
        if z[place] <= NormalDist().inv_cdf(1 - (1 - level) / (2 * (len(known) - rank))):
            break
        result[known[place]] = True
    return result
