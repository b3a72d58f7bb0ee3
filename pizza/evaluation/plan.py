# SPDX-License-Identifier: Apache-2.0
"""All measures in one round: what they share is paid for once, what a budget allows is divided."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import numpy as np

from pizza import coalition
from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.evaluation.case import MOST_ORDERS, MOST_POINTS, Bools, Case, Effort, Floats
from pizza.evaluation.held_out import FEWEST, MOST
from pizza.evaluation.measure import Inquiry, Measure
from pizza.evaluation.result import Faithfulness

BUDGET = 256
"""Coalitions when nobody says how many."""

LEVELS = tuple(
    Effort(points=points, orders=orders, held_out=held_out)
    for points, orders, held_out in (
        (4, 0, FEWEST),
        (6, 0, FEWEST),
        (6, 1, 20),
        (8, 1, 24),
        (8, 2, 32),
        (10, 2, 48),
        (10, 3, 64),
        (MOST_POINTS, 3, 64),
        (MOST_POINTS, 3, 128),
        (MOST_POINTS, 5, 128),
        (MOST_POINTS, MOST_ORDERS, 128),
    )
)
"""How a larger budget is spent: a curve, one control, more of all. The rest goes to held-out
coalitions, whose number the standard errors depend on."""

Round = Generator[Bools, Floats, tuple[Faithfulness, ...]]
"""Yields coalitions ``(m, n_units)`` once, receives values ``(m, n_columns)``."""


class Examination:
    """Some measures of one attribution, within a budget.

    Args:
        measures: What to measure.
        case: The attribution.
        budget: Coalitions that may be evaluated. Those whose values are known are free.
    """

    def __init__(self, measures: Sequence[Measure], case: Case, budget: int = BUDGET) -> None:
        if np.isnan(case.scores).all():
            raise ConfigError(
                "the attribution has no score for this row, so there is nothing to evaluate: "
                "choose another output token or metric."
            )
        for measure in measures:
            if why := measure.unsuited(case):
                raise ConfigError(f"{measure.label!r} cannot be taken here: {why}.")
        self.measures = tuple(measures)
        self.case = case
        self.budget = budget

    def effort(self, free: AbstractSet[bytes] = frozenset(), cap: int | None = None) -> Effort:
        """What the budget allows.

        Args:
            free: Keys of coalitions whose values are known.
            cap: A further limit, or ``None``.

        Raises:
            BudgetTooSmallError: It does not allow the least.
        """
        allowed = self.budget if cap is None else min(self.budget, cap)
        costs = ((level, self.cost(level, free)) for level in LEVELS)
        chosen: tuple[Effort, int] | None = None
        for level, cost in costs:
            if cost > allowed:
                break
            chosen = level, cost
        if chosen is None:
            raise self._too_small(free, allowed)
        level, cost = chosen
        streams = len({m.held_out for m in self.measures} - {None})
        more = (allowed - cost) // streams if streams else 0
        return replace(level, held_out=min(max(MOST, level.held_out), level.held_out + more))

    def cost(self, effort: Effort, free: AbstractSet[bytes]) -> int:
        """Distinct coalitions to pay for."""
        return len(set().union(*(_paid(m, self.case, effort, free) for m in self.measures)))

    def plan(
        self,
        effort: Effort,
        *,
        column: int = 0,
        known: Mapping[bytes, float] | None = None,
    ) -> Round:
        """One round for all measures.

        Args:
            effort: From `effort`.
            column: Which column of the values is evaluated.
            known: Values by key that need not be asked for.
        """
        known = known or {}
        inquiries = [measure.plan(self.case, effort) for measure in self.measures]
        asked = [next(inquiry) for inquiry in inquiries]
        rows = np.concatenate(asked)
        keys = [coalition.key(row) for row in rows]
        fresh = np.array([key not in known for key in keys], dtype=bool)
        values = np.array([known.get(key, np.nan) for key in keys])
        if fresh.any():
            values[fresh] = (yield rows[fresh])[:, column]
        parts = np.split(values, np.cumsum([len(part) for part in asked])[:-1])
        return tuple(_concluded(i, part) for i, part in zip(inquiries, parts, strict=True))

    def _too_small(self, free: AbstractSet[bytes], allowed: int) -> BudgetTooSmallError:
        needed = self.cost(LEVELS[0], free)
        each = {m.label: len(_paid(m, self.case, LEVELS[0], free)) for m in self.measures}
        fit = ", ".join(f"{label} ({calls})" for label, calls in each.items() if calls <= allowed)
        return BudgetTooSmallError(
            f"{', '.join(each)} together need at least {needed} calls for {self.case.n_units} "
            f"units, and the budget allows {allowed} besides those for the whole prompt. Raise the "
            f"budget, or name fewer measures; these fit one by one: {fit or 'none'}.",
            needed=needed,
            allowed=allowed,
        )


def suited(
    measures: Sequence[Measure], case: Case, room: int, free: AbstractSet[bytes] = frozenset()
) -> tuple[tuple[Measure, ...], list[str]]:
    """Measures of a usual set that can be taken, and why the others cannot.

    Those that are taken only where there is ``room`` for their coalitions are left out without a
    word: nobody named them.
    """
    found, why = [], []
    for measure in measures:
        reason = measure.unsuited(case)
        if measure.only_with_room:
            if not reason and len(_paid(measure, case, LEVELS[0], free)) <= room:
                found.append(measure)
        elif reason:
            why.append(f"{measure.label} was left out: {reason}.")
        else:
            found.append(measure)
    return tuple(found), why


def _paid(measure: Measure, case: Case, effort: Effort, free: AbstractSet[bytes]) -> set[bytes]:
    inquiry = measure.plan(case, effort)
    keys = set(_keys(next(inquiry)))
    inquiry.close()
    return keys - free


def _keys(rows: Bools) -> Iterator[bytes]:
    """Keys of the coalitions that cost something: that of all units is free."""
    return (coalition.key(row) for row in rows[~rows.all(axis=1)])


def _concluded(inquiry: Inquiry, values: Floats) -> Faithfulness:
    try:
        inquiry.send(values)
    except StopIteration as end:
        result: Faithfulness = end.value
        return result
    raise AssertionError("a measure asks once")
