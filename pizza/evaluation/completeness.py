# SPDX-License-Identifier: Apache-2.0
"""Completeness error: do the scores add up to what the whole prompt does?"""

from __future__ import annotations

import numpy as np

from pizza.evaluation.case import Case, Effort
from pizza.evaluation.measure import Inquiry, Measure


class CompletenessError(Measure):
    """``|sum of scores - (v(all) - v(none))|``.

    Source: the completeness axiom of Sundararajan et al. 2017 (section 3); efficiency in Shapley
    1953. Only methods that promise it (Shapley-type, integrated gradients) can be blamed for it.

    Cost: 1 call.
    """

    name = "completeness-error"
    higher_is_better = False
    meaning = "do the scores add up to the effect of the whole prompt?"

    def calls(self, n_units: int) -> tuple[int, int]:
        """The coalition of no unit."""
        return 1, 1

    def plan(self, case: Case, effort: Effort) -> Inquiry:
        """One round."""
        values = yield np.zeros((1, case.n_units), dtype=bool)
        gap = -float(values[0]) + 0.0
        total = float(case.filled.sum())
        error = abs(total - gap)
        return self.figure(
            error,
            scale=case.scale,
            details={
                "sum_of_scores": total,
                "all_less_none": gap,
                "relative": error / abs(gap) if gap else None,
            },
        )
