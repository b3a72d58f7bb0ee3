# SPDX-License-Identifier: Apache-2.0
"""Complement pairs among given coalitions, and what each of them stands for.

A regression on pairs weighs a pair by one over its probability. That is known for the designs of
this package, which are recognised by how many pairs of each size there are. Other designs serve
when they hold pairs of every size: then the pairs that were found stand for all of their size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza import coalition
from pizza.abc import Game
from pizza.errors import ConfigError
from pizza.methods._designs.enumeration import Coalitions, Floats
from pizza.methods._designs.given import neighbours_stand_together, places, without_full
from pizza.methods._designs.pairs import Pairs, fits, kernel_masses, uniform_masses, weighed

_SUITING = (
    "Measure with 'kernel-shap', 'leverage-shap', 'odd-shap', 'paired-sparse-shap' or "
    "'regression-msr', or use 'context-cite', which concludes from random halves."
)


@dataclass(frozen=True, slots=True)
class PairedValues:
    """Values of complement pairs.

    Attributes:
        total: ``v(all) - v(none)`` of each column, NaN = not known.
        odd: ``(v(S) - v(complement)) / 2``, ``(n_pairs, n_columns)``.
    """

    total: Floats
    odd: Floats

    @classmethod
    def of(cls, values: Floats) -> PairedValues:
        """From the values of `Pairs.round`."""
        first, second = np.split(values[1:], 2)
        return cls(total=-values[0], odd=(first - second) / 2)

    def columns(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_], bool]]:
        """Columns that know the same things: their numbers, known pairs, whether the total is."""
        known = np.vstack([~np.isnan(self.odd), ~np.isnan(self.total)[None]])
        packed = np.packbits(known, axis=0).T
        _, first, group = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        for number, column in enumerate(first):
            members = np.flatnonzero(group.ravel() == number)
            yield members, known[:-1, column], bool(known[-1, column])


@dataclass(frozen=True, slots=True)
class FoundPairs:
    """Complement pairs and their values.

    Attributes:
        pairs: The pairs, by size and then in an order of their own: not that of the coalitions.
        measured: Their values.
        values: The same in the order of `Pairs.round`.
        unpaired: Coalitions that were left out, because their complement is not there.
    """

    pairs: Pairs
    measured: PairedValues
    values: Floats
    unpaired: int

    @property
    def details(self) -> dict[str, Any]:
        """What a reader should know beyond the pairs."""
        return {"unpaired": self.unpaired} if self.unpaired else {}


def find_pairs(
    game: Game,
    coalitions: Coalitions,
    values: Floats,
    *,
    who: str,
    fewest: int = 1,
    total: bool = False,
) -> FoundPairs:
    """The complement pairs among given coalitions.

    Args:
        game: The game.
        coalitions: ``(m, n_units)``, distinct.
        values: ``(m, n_columns)``.
        who: Name of the method.
        fewest: Pairs that it needs, where there are so many.
        total: Whether it needs the empty coalition.

    Raises:
        ConfigError: There are too few pairs, or their probabilities cannot be told.
    """
    n = game.n_units
    coalitions, values = without_full(game, coalitions, values, who=who)
    place = places(coalitions)
    nothing = place.get(coalition.key(np.zeros(n, dtype=bool)))
    if nothing is None and (total or n == 1):
        raise ConfigError(
            f"{who} needs the empty coalition, and it is not among those given. {_SUITING}"
        )
    first, second = _members(coalitions, place)
    _check(coalitions[first], n, who, fewest)
    ordered = values[np.concatenate([[0 if nothing is None else nothing], first, second])]
    if nothing is None:
        ordered[0] = np.nan
    pairs = weighed(coalitions[first], _expected(coalitions[first], n, who))
    unpaired = len(coalitions) - 2 * len(first) - (nothing is not None)
    return FoundPairs(pairs, PairedValues.of(ordered), ordered, unpaired)


def _members(
    coalitions: Coalitions, place: dict[bytes, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of the smaller members and of their complements, whatever the order of the rows."""
    n = coalitions.shape[1]
    sizes = coalitions.sum(axis=1)
    # Of two halves the one with the first unit stands for both, as in `draw_pairs`.
    smaller = (2 * sizes < n) | ((2 * sizes == n) & coalitions[:, 0])
    found = [
        (int(sizes[row]), key, row, place[other])
        for key, row in place.items()
        if smaller[row] and sizes[row] and (other := coalition.key(~coalitions[row])) in place
    ]
    rows = np.array([pair[2:] for pair in sorted(found)], dtype=np.intp).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def _check(present: Coalitions, n: int, who: str, fewest: int) -> None:
    fewest = min(fewest, (1 << n - 1) - 1)
    if len(present) < fewest:
        raise ConfigError(
            f"{who} concludes from coalitions that come with their complements: it needs {fewest} "
            f"such pairs for {n} units and {len(present)} are there. {_SUITING}"
        )
    if neighbours_stand_together(present):
        raise ConfigError(
            f"{who} concludes from random coalitions, and in these neighbouring units are present "
            f"together. {_SUITING}"
        )


def _expected(present: Coalitions, n: int, who: str) -> Floats:
    """Pairs of each size that the design draws on average, for s = 1..n//2."""
    counts = np.bincount(present.sum(axis=1), minlength=n // 2 + 1)[1:]
    for masses in (uniform_masses(n), kernel_masses(n)):
        if (expected := fits(counts, n, masses)) is not None:
            return expected
    missing = np.flatnonzero(counts == 0) + 1
    if len(missing):
        raise ConfigError(
            f"{who} concludes from complement pairs of all sizes, and of {len(missing)} of the "
            f"sizes 1 to {n // 2} there are none (of {missing[0]}, for one). {_SUITING}"
        )
    return counts.astype(np.float64)
