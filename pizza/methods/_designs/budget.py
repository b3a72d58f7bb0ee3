# SPDX-License-Identifier: Apache-2.0
"""How many coalitions a method evaluates: the option ``samples``, the budget, what they cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Tariff
from pizza.errors import BudgetTooSmallError, ConfigError


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


def check_samples(samples: int | None) -> int | None:
    """The option ``samples``, if it can be a number of coalitions."""
    if samples is not None and (isinstance(samples, bool) or not samples >= 1):
        raise ConfigError(f"samples is a number of coalitions, at least 1, not {samples!r}.")
    return samples


def coalitions_to_spend(
    game: Game,
    samples: int | None,
    *,
    fewest: int,
    default: int,
    who: str,
    advice: str = "",
    repeats: int = 1,
    share: float | None = None,
) -> int:
    """How many coalitions a method evaluates, the empty one included.

    Args:
        game: Its budget decides when ``samples`` is ``None``.
        samples: What the user asked for.
        fewest: The method's minimum.
        default: Without a budget.
        who: Name of the method.
        advice: What to do when the budget is too small.
        repeats: How often a coalition may come up, on average, in the number that is returned:
            only the first time costs a call.
        share: Part of the units that its coalitions hold on average. Where the budget is counted in
            tokens or dollars, that many more of them are to be had than of whole prompts. Such a
            method sees to it that together they do not cost more than the limit (see
            `affordable`). ``None``: there may be any number of units in each.

    Raises:
        ConfigError: ``samples`` is below the minimum.
        BudgetTooSmallError: The budget is below the minimum or below ``samples``.
    """
    most = (1 << game.n_units) - 1
    fewest = min(fewest, most)
    if share is not None and game.tariff is not None:
        game = replace(game, max_calls=game.tariff.calls(share))
    if samples is not None and samples < fewest:
        raise ConfigError(
            f"samples={samples!r} is too few: {who} needs at least {fewest} coalitions for "
            f"{game.n_units} units."
        )
    require(game, fewest if samples is None else min(samples, most), who, advice=advice)
    if samples is None:
        samples = max(fewest, default) if game.max_calls is None else game.max_calls
    return min(samples, most * repeats)


def affordable(tariff: Tariff | None, rows: NDArray[np.bool_], spent: float = 0.0) -> int:
    """How many of ``rows`` ``(m, n_units)``, in their order, what is left of the limit pays for.

    Args:
        tariff: What coalitions cost; ``None`` = any number.
        rows: Coalitions that were not evaluated before.
        spent: What was spent before.
    """
    if tariff is None or not len(rows):
        return len(rows)
    # Sums of prices are not exact; a limit that they reach is not exceeded.
    left = (tariff.limit - spent) * (1 + 1e-12)
    return int(np.searchsorted(np.cumsum(tariff.of(rows)), left, side="right"))


def bill(tariff: Tariff | None, spent: float) -> dict[str, Any]:
    """The detail ``cost``: what coalitions cost and what is left, where there is a tariff."""
    if tariff is None:
        return {}
    left = {"limit": tariff.limit, "spent": spent, "unspent": tariff.limit - spent}
    return {
        "cost": {"currency": tariff.currency}
        | {name: round(float(amount), 9) for name, amount in left.items()}
    }


def paired_calls(n_units: int, samples: int | None, *, fewest: int) -> tuple[int, int]:
    """Coalitions of a method that evaluates the empty one and pairs, so an odd number."""
    most = (1 << n_units) - 1
    fewest = min(fewest, most)
    if samples is None:
        return fewest, most
    exactly = max(fewest, min(samples, most))
    exactly -= 1 - exactly % 2
    return exactly, exactly
