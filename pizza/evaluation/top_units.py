# SPDX-License-Identifier: Apache-2.0
"""What the first units of the ranking do alone, and what is left without them."""

from __future__ import annotations

from typing import Any

import numpy as np

from pizza.evaluation.case import Bools, Case, Floats, Ints
from pizza.evaluation.measure import mean_of_known, plain
from pizza.evaluation.orders import OrderMeasure, kept

PERCENTS = (1, 5, 10, 20, 50)
LARGEST = (1, 3, 5)


class _Shares(OrderMeasure):
    """Means over the first 1, 5, 10, 20 and 50 % of the units (rounded up, each number once)."""

    def sizes(self, n_units: int, points: int) -> Ints:
        """How many units these shares are."""
        # In whole numbers: 0.05 * 140 is more than 7 to a computer.
        return np.unique([-(-percent * n_units // 100) for percent in PERCENTS])

    def judge(self, case: Case, sizes: Ints, values: Floats) -> float:
        """The mean fall from all units, on the metric's scale."""
        return mean_of_known(-values) + 0.0

    def scale(self, case: Case) -> str:
        """The metric's."""
        return case.scale

    def details(
        self, case: Case, sizes: Ints, values: Floats, control: Floats | None
    ) -> dict[str, Any]:
        """The fall for each number of units; also of the probability where it is known."""
        found: dict[str, Any] = {"units": sizes.tolist(), "falls": plain(-values + 0.0)}
        if case.log_probability is not None:
            whole = np.exp(case.log_probability)
            falls = whole - np.exp(case.log_probability + values)
            found["probability"] = mean_of_known(falls) + 0.0
            found["probability_of_output"] = float(whole)
        return found


class Comprehensiveness(_Shares):
    """``mean over k of v(all) - v(all without the first k units)``: what the best units take away.

    Source: ERASER (DeYoung et al. 2020, equation 1, averaged over k), which takes
    probabilities: they are in the details where the metric is a log-probability.

    Cost: up to 5 calls, as many for each random order.
    """

    name = "comprehensiveness"
    higher_is_better = True
    meaning = "what is lost without the best units"


class Sufficiency(_Shares):
    """``mean over k of v(all) - v(only the first k units)``: what the best units do not bring.

    Source: ERASER (DeYoung et al. 2020, equation 2, averaged over k).

    Cost: up to 5 calls, as many for each random order.
    """

    name = "sufficiency"
    higher_is_better = False
    meaning = "what is missing with only the best units"

    def coalitions(self, order: Ints, sizes: Ints) -> Bools:
        """The first units of the order, and no others."""
        return kept(order, sizes)

    def _free(self, n_units: int) -> int:
        return n_units


class TopKDrop(OrderMeasure):
    """``mean over k = 1, 3, 5 of (v(all) - v(all without the first k units)) / output tokens``.

    Divided by the number of output tokens where the value is a sum over them (`logprob-diff`).
    Source: the top-k log-probability drop of ContextCite (Cohen-Wang et al. 2024).

    Cost: up to 3 calls, as many for each random order.
    """

    name = "top-k-drop"
    higher_is_better = True
    meaning = "what each output token loses with the first 1, 3, 5 units"

    def sizes(self, n_units: int, points: int) -> Ints:
        """1, 3 and 5, as far as there are so many."""
        return np.array([k for k in LARGEST if k <= n_units], dtype=np.int64)

    def judge(self, case: Case, sizes: Ints, values: Floats) -> float:
        """The mean over k."""
        return mean_of_known(-values) / case.n_tokens + 0.0

    def scale(self, case: Case) -> str:
        """The metric's, per token where it is a sum over tokens."""
        return f"{case.scale} per token" if case.n_tokens > 1 else case.scale

    def details(
        self, case: Case, sizes: Ints, values: Floats, control: Floats | None
    ) -> dict[str, Any]:
        """The drop for each k."""
        drops = -values / case.n_tokens + 0.0
        return {
            "units": sizes.tolist(),
            "drops": plain(drops),
            "random_drops": None if control is None else plain(-control / case.n_tokens + 0.0),
            "output_tokens": case.n_tokens,
        }
