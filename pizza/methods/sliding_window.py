# SPDX-License-Identifier: Apache-2.0
"""Sliding window: remove runs of neighbouring units."""

from __future__ import annotations

import numpy as np

from pizza.abc import Game, Method, Plan, Scores
from pizza.errors import ConfigError
from pizza.methods._designs.budget import require
from pizza.methods._designs.given import finite
from pizza.methods._fits import model_noise


class SlidingWindow(Method):
    """Removes every window of ``size`` neighbouring units, ``stride`` apart.

    A unit's score is the mean over the windows that hold it of ``effect(window) / members``: the
    effect is shared equally by the members, so with ``stride == size`` the scores of all units sum
    to the sum of the effects. The last window is moved back so that it ends with the last unit.

    Standard errors are those of the model's noise, where it was measured.

    Args:
        size: Units per window.
        stride: Units between the starts of neighbouring windows, 1 to ``size``.

    Cost: about ``n_units / stride`` calls, all in one round.
    """

    def __init__(self, size: int = 3, stride: int = 1) -> None:
        if size < 1:
            raise ConfigError(f"the window size must be at least 1, not {size!r}.")
        if not 1 <= stride <= size:
            raise ConfigError(
                f"the stride must be 1 to {size} (the window size), not {stride!r}: a larger one "
                "leaves units without a score."
            )
        self.size = size
        self.stride = stride

    def _starts(self, n_units: int) -> list[int]:
        last = max(n_units - self.size, 0)
        return sorted({*range(0, last + 1, self.stride), last})

    def calls(self, n_units: int) -> tuple[int, int]:
        """One call per window."""
        n = len(self._starts(n_units))
        return n, n

    def plan(self, game: Game) -> Plan:
        """One round of all windows."""
        starts = self._starts(game.n_units)
        require(game, len(starts), f"sliding-window with stride {self.stride}")
        members = np.zeros((len(starts), game.n_units), dtype=bool)
        for row, start in zip(members, starts, strict=True):
            row[start : start + self.size] = True
        values = finite((yield ~members))
        shares = members / members.sum(axis=1, keepdims=True)
        scores = (shares.T @ -np.nan_to_num(values)) / members.sum(axis=0)[:, None]
        # A unit's score is undefined in a column as soon as one of its windows is.
        undefined = members.T.astype(float) @ np.isnan(values) > 0
        scores[undefined] = np.nan
        weights = shares / members.sum(axis=0)
        errors = model_noise.errors(game, (weights**2).sum(axis=0), weights.sum(axis=0), scores.T)
        return Scores(values=scores.T, standard_errors=errors, details={"windows": len(starts)})
