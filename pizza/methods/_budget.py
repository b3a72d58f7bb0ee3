# SPDX-License-Identifier: Apache-2.0
"""The check that methods share before they ask for the first value."""

from __future__ import annotations

from pizza.abc import Game
from pizza.errors import BudgetTooSmallError


def require(game: Game, needed: int, who: str, *, advice: str = "") -> None:
    """Raise `BudgetTooSmallError` when the game allows fewer calls than ``needed``."""
    if game.max_calls is not None and game.max_calls < needed:
        raise BudgetTooSmallError(
            f"{who} needs {needed} calls for {game.n_units} units and the budget allows "
            f"{game.max_calls}. Raise the budget, "
            + (advice or "use larger units (sentence, paragraph), or the method 'hierarchical'."),
            needed=needed,
            allowed=game.max_calls,
        )
