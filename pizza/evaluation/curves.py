# SPDX-License-Identifier: Apache-2.0
"""Deletion and insertion: the area under the values as units go, or come, in decreasing score."""

from __future__ import annotations

from typing import Any

import numpy as np

from pizza.evaluation.case import Bools, Case, Floats, Ints
from pizza.evaluation.measure import plain
from pizza.evaluation.orders import OrderMeasure, kept

_FEWEST = 4
"""Steps of the roughest curve that is still one."""


class _Curve(OrderMeasure):
    """``area = integral over x of y``, by trapezoids; x = share of the units taken, 0 to 1.

    ``y = 1 + v(S) / |v(all) - v(none)|``: 1 with all units, 0 with none where the prompt supports
    the output, and 2 where it works against it, so that the direction that is better stays.
    """

    def sizes(self, n_units: int, points: int) -> Ints:
        """From 0 to all, evenly and symmetrically: deletion and insertion share random orders."""
        points = max(points, _FEWEST)
        if n_units <= points:
            return np.arange(n_units + 1)
        half = np.round(np.linspace(0, n_units / 2, points // 2 + 1)).astype(np.int64)
        return np.unique(np.concatenate([half, n_units - half]))

    def judge(self, case: Case, sizes: Ints, values: Floats) -> float:
        """The normalised area; NaN where the ends are not known or not different."""
        gap = self._gap(values)
        if not gap > 0:
            return float("nan")
        return 1.0 + _area(sizes, values) / gap

    def scale(self, case: Case) -> str:
        """A share of the fall from all units to none."""
        return "share"

    def _gap(self, values: Floats) -> float:
        """``|v(all) - v(none)|``; the ends of the curve are these two."""
        return abs(float(values[-1] - values[0]))

    def details(
        self, case: Case, sizes: Ints, values: Floats, control: Floats | None
    ) -> dict[str, Any]:
        """The curve, its area on the metric's own scale, and the mean curve of random orders."""
        return {
            "units": sizes.tolist(),
            "values": plain(values),
            "area": _area(sizes, values),
            "scale": case.scale,
            "random_values": None if control is None else plain(control),
        }


class Deletion(_Curve):
    """Units are removed, those with the highest scores first: the earlier it falls, the better.

    Source: the deletion metric of RISE (Petsiuk et al. 2018), on values instead of probabilities;
    "most relevant first" of Samek et al. 2017.

    Cost: 4 to 20 calls for the curve, as many for each of up to 10 random orders.
    """

    name = "deletion"
    higher_is_better = False
    meaning = "how long the output survives losing the best units"


class Insertion(_Curve):
    """Units are added to none, those with the highest scores first: early rises are better.

    Source: the insertion metric of RISE (Petsiuk et al. 2018).

    Cost: 4 to 20 calls for the curve; random orders are shared with `Deletion`.
    """

    name = "insertion"
    higher_is_better = True
    meaning = "how soon the best units bring the output back"

    def coalitions(self, order: Ints, sizes: Ints) -> Bools:
        """The first units of the order, and no others."""
        return kept(order, sizes)

    def _free(self, n_units: int) -> int:
        return n_units

    def _controls(self, case: Case, count: int) -> list[Ints]:
        # Keeping the last k is removing the first n - k: the coalitions of a random deletion.
        return [order[::-1] for order in case.random_orders(count)]


def _area(sizes: Ints, values: Floats) -> float:
    """By trapezoids over the share of units; points that are not known are passed over.

    NaN when an end is among them, or more than half: a line between two ends is no curve.
    """
    known = ~np.isnan(values)
    if not known[[0, -1]].all() or 2 * known.sum() < len(known):
        return float("nan")
    x, y = sizes[known] / sizes[-1], values[known]
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2.0)
