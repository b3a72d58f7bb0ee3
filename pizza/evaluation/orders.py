# SPDX-License-Identifier: Apache-2.0
"""What measures of a ranking share: the order of the scores beside random orders."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from pizza.evaluation.case import MOST_ORDERS, MOST_POINTS, Bools, Case, Effort, Floats, Ints
from pizza.evaluation.measure import Inquiry, Measure, mean_of_known


def removed(order: Ints, sizes: Ints) -> Bools:
    """Coalitions without the first k units of an order, ``(len(sizes), n_units)``."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    result: Bools = place[None, :] >= sizes[:, None]
    return result


def kept(order: Ints, sizes: Ints) -> Bools:
    """Coalitions of the first k units of an order, ``(len(sizes), n_units)``."""
    return ~removed(order, sizes)


class OrderMeasure(Measure):
    """Takes the units in the order of their scores, and in random orders for comparison."""

    def calls(self, n_units: int) -> tuple[int, int]:
        """One order with few points, or eleven orders with many."""
        fewest = self.sizes(n_units, 1)
        most = self.sizes(n_units, MOST_POINTS)
        least = len(set(fewest.tolist()) - {self._free(n_units)})
        return least, (1 + MOST_ORDERS) * len(most)

    def _free(self, n_units: int) -> int:
        """The size at which all units are there."""
        return 0

    @abstractmethod
    def sizes(self, n_units: int, points: int) -> Ints:
        """How many units are taken, ``(k,)``, ascending, each once."""

    def coalitions(self, order: Ints, sizes: Ints) -> Bools:
        """Coalitions for the first units of an order being taken."""
        return removed(order, sizes)

    @abstractmethod
    def judge(self, case: Case, sizes: Ints, values: Floats) -> float:
        """The figure for one order; ``values`` are ``(k,)``."""

    @abstractmethod
    def scale(self, case: Case) -> str:
        """What the figure counts."""

    @abstractmethod
    def details(
        self, case: Case, sizes: Ints, values: Floats, control: Floats | None
    ) -> dict[str, Any]:
        """Further figures; ``control`` is the mean of the random orders' values ``(k,)``."""

    def plan(self, case: Case, effort: Effort) -> Inquiry:
        """One round: the order of the scores, then the random ones."""
        sizes = self.sizes(case.n_units, effort.points)
        orders = [case.order, *self._controls(case, effort.orders)]
        asked = yield np.concatenate([self.coalitions(order, sizes) for order in orders])
        table = asked.reshape(len(orders), len(sizes))
        own, rest = table[0], table[1:]
        judged = np.array([self.judge(case, sizes, values) for values in rest])
        control = None
        if len(rest):
            control = np.array([mean_of_known(column) for column in rest.T])
        details = self.details(case, sizes, own, control)
        details["random_orders"] = [None if np.isnan(x) else float(x) for x in judged]
        value = self.judge(case, sizes, own)
        warnings: tuple[str, ...] = ()
        if np.isnan(own).any():
            warnings = (f"{int(np.isnan(own).sum())} of {len(own)} values are not defined",)
        return self.figure(
            value,
            scale=self.scale(case),
            random=mean_of_known(judged) if len(judged) else None,
            details=details,
            warnings=warnings,
        )

    def _controls(self, case: Case, count: int) -> list[Ints]:
        return case.random_orders(count)
