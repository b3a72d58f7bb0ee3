# SPDX-License-Identifier: Apache-2.0
"""Coalitions that a method did not choose: what they are, and whether it can conclude from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pizza import coalition
from pizza.abc import Game
from pizza.errors import ConfigError
from pizza.methods._designs.halves import FEWEST

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_RARE = 5 * np.log(10.0)
"""A design is refused when chance makes random coalitions look like it once in 100,000 times."""


def without_full(
    game: Game, coalitions: Bools, values: Floats, *, who: str
) -> tuple[Bools, Floats]:
    """Coalitions and values without the full coalition, whose value is 0 by definition.

    Infinite values become NaN.

    Args:
        game: Its number of units and of columns.
        coalitions: ``(m, n_units)`` bool.
        values: ``(m, n_columns)``.
        who: Name of the method.

    Raises:
        ConfigError: The shapes do not fit the game.
    """
    shape = (len(coalitions), game.n_units)
    if coalitions.shape != shape or values.shape != (len(coalitions), game.n_columns):
        raise ConfigError(
            f"{who} got coalitions {coalitions.shape} and values {values.shape}; for this game "
            f"they are (m, {game.n_units}) and (m, {game.n_columns})."
        )
    values, rows = finite(values), ~coalitions.all(axis=1)
    if rows.all():
        return coalitions, values
    return coalitions[rows], values[rows]


def finite(values: Floats) -> Floats:
    """Values of which those that are not finite are not known: they can be compared with none."""
    known = np.isfinite(values)
    return values if known.all() else np.where(known, values, np.nan)


def known_mean(array: Floats) -> Floats:
    """The mean over the first axis without NaN; NaN where there is nothing else."""
    known = ~np.isnan(array)
    counts = known.sum(axis=0)
    sums = np.where(known, array, 0.0).sum(axis=0)
    result: Floats = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return result


def with_full(rows: Bools, values: Floats) -> tuple[Bools, Floats]:
    """The same with the full coalition at the end."""
    full = np.ones((1, rows.shape[1]), dtype=bool)
    return np.concatenate([rows, full]), np.concatenate([values, np.zeros((1, values.shape[1]))])


def is_complete(rows: Bools) -> bool:
    """Whether distinct ``rows`` without the full coalition are all the others."""
    return bool(len(rows) == (1 << rows.shape[1]) - 1)


def places(coalitions: Bools) -> dict[bytes, int]:
    """The row of each coalition, by its `coalition.key`."""
    return {coalition.key(row): place for place, row in enumerate(coalitions)}


def in_order_of_bits(game: Game, coalitions: Bools, values: Floats, *, who: str) -> Floats:
    """Values of all ``2^n`` coalitions in the order of `enumeration.every`.

    Raises:
        ConfigError: One is missing.
    """
    n = game.n_units
    rows, values = without_full(game, coalitions, values, who=who)
    table = np.zeros((2**n, game.n_columns))
    numbers = rows @ (1 << np.arange(n))
    missing = 2**n - 1 - len(np.unique(numbers))
    if missing:
        raise ConfigError(
            f"{who} needs the values of all {2**n} coalitions of {n} units, and {missing} of them "
            f"are missing. Measure with '{who}', or use an estimator that suits these coalitions."
        )
    table[numbers] = values
    return table


def halves(
    game: Game, coalitions: Bools, values: Floats, *, who: str
) -> tuple[Bools, Floats, bool]:
    """Coalitions in which each unit is present with probability 1/2, checked to look like it.

    When all coalitions are there, the full one is among those that are returned: a regression on
    all of them is exact. Otherwise it is left out: nobody drew it.

    Returns:
        Coalitions, their values, and whether these are all coalitions.

    Raises:
        ConfigError: They are fewer than eight, or not random halves.
    """
    rows, values = without_full(game, coalitions, values, who=who)
    if is_complete(rows):
        return *with_full(rows, values), True
    if len(rows) < FEWEST:
        raise ConfigError(
            f"{who} concludes from {FEWEST} coalitions at least, not {len(rows)}: measure more."
        )
    wrong = _not_halves(rows)
    if wrong:
        raise ConfigError(
            f"{who} concludes from random coalitions that hold each unit with probability 1/2, and "
            f"these do not: {wrong}. Measure with '{who}' or 'auto', or use the "
            "method that these were measured for."
        )
    return rows, values, False


def _not_halves(rows: Bools) -> str:
    """What shows that rows are no fair coin tosses, or ``""``.

    Chance passes each bound less often than `_RARE` says (Hoeffding 1963; Laurent & Massart 2000
    for the squares), also when rows come with their complements.
    """
    m, n = rows.shape
    sizes = rows.sum(axis=1)
    # Nobody draws the full coalition, which shows where there are few others.
    share = 0.5 * (1 - 1 / (2.0 ** min(n, 64) - 1))
    if abs(sizes.mean() / n - share) > np.sqrt((_RARE + np.log(2)) / (2 * m * n)):
        return f"they hold {sizes.mean():.3g} of {n} units on average"
    spread = float(((2 * sizes - n) ** 2).mean()) / n
    if spread > 1 + 2 * np.sqrt(2 * _RARE / m) + 4 * _RARE / m:
        return f"their sizes spread {np.sqrt(spread):.1f} times as much"
    shares = rows.mean(axis=0)
    off = np.abs(shares - share)
    if off.max() > np.sqrt((_RARE + np.log(2 * n)) / (2 * m)):
        worst = int(off.argmax())
        return f"unit {worst} is present in {shares[worst]:.0%} of them"
    if neighbours_stand_together(rows):
        return "neighbouring units are present together"
    return ""


def neighbours_stand_together(rows: Bools) -> bool:
    """Whether units are present with their neighbours more often than chance has it.

    So they are where blocks or windows were removed; random coalitions have no neighbours.
    """
    m, n = rows.shape
    if n < 3 or not m:
        return False
    sizes = rows.sum(axis=1)
    chance = (sizes * (sizes - 1) + (n - sizes) * (n - sizes - 1)) / (n * (n - 1))
    alike = (rows[:, 1:] == rows[:, :-1]).mean(axis=1)
    return bool((alike - chance).mean() > np.sqrt(_RARE / (m * (n - 1))))
