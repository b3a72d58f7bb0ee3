# SPDX-License-Identifier: Apache-2.0
"""What a method returned, held against its game."""

from __future__ import annotations

from typing import Any

from pizza.abc import Game, Scores
from pizza.errors import PluginContractError


def checked(scores: Any, game: Game, who: str) -> Scores:
    """The scores, if they are scores of this game.

    Raises:
        PluginContractError: They are something else, or of a wrong shape.
    """
    expected = (game.n_columns, game.n_units)
    if not isinstance(scores, Scores) or scores.values.shape != expected:
        shape = getattr(getattr(scores, "values", None), "shape", None)
        raise PluginContractError(
            f"the method {who!r} returned {type(scores).__name__} of shape {shape}; "
            f"expected pizza.abc.Scores with values (n_columns, n_units) = {expected}."
        )
    return scores
