# SPDX-License-Identifier: Apache-2.0
"""What a model that answers one prompt in several ways adds to the error of scores.

Scores that are linear in the values have ``sd^2 = noise^2 sum c_S^2 + noise_all^2 c_all^2``. Values
are relative to that of all units, which was measured too: its coefficient is what makes the sum of
all coefficients zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game

Floats = NDArray[np.float64]


def variance(game: Game, squares: Floats, of_all: Floats | float) -> Floats | None:
    """The variance of scores that are linear in the values, ``(n_columns, n_units)``.

    Args:
        game: With the standard deviations of its values, if they were measured.
        squares: Sums of squared coefficients of all coalitions but the full one, ``(n_units,)`` or
            ``(n_columns, n_units)``.
        of_all: Coefficients of the full coalition, broadcast alike.

    Returns:
        ``None`` when nobody measured the noise.
    """
    if game.noise is None:
        return None
    noise = np.asarray(game.noise, dtype=np.float64)[:, None] ** 2
    result: Floats = squares * noise
    if game.noise_all is not None:
        of_all = np.asarray(of_all, dtype=np.float64)
        result = result + of_all**2 * np.asarray(game.noise_all, dtype=np.float64)[:, None] ** 2
    return result


def errors(game: Game, squares: Floats, of_all: Floats | float, values: Floats) -> Floats | None:
    """Standard errors of scores that have no other error than noise; NaN where values are NaN."""
    found = variance(game, squares, of_all)
    if found is None:
        return None
    return np.where(np.isnan(values), np.nan, np.sqrt(np.broadcast_to(found, values.shape)))


def added(standard_errors: Floats | None, more: Floats | None) -> Floats | None:
    """Standard errors with a further variance; ``None`` and NaN stay what they are."""
    if standard_errors is None or more is None:
        return standard_errors
    result: Floats = np.sqrt(standard_errors**2 + more)
    return result
