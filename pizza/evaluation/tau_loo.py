# SPDX-License-Identifier: Apache-2.0
"""Rank agreement with leave-one-out."""

from __future__ import annotations

import numpy as np

from pizza import coalition
from pizza.evaluation.case import Case, Effort, Floats
from pizza.evaluation.measure import Inquiry, Measure, plain


class TauLoo(Measure):
    """``Kendall tau-b(scores, v(all) - v(all without i))``.

    Source: tau-loo of ferret (Attanasio et al. 2023). It says that an attribution
    agrees with leave-one-out, which is right only where units do not stand in for one another.

    Cost: n_units calls.
    """

    name = "tau-loo"
    higher_is_better = True
    meaning = "same ranking as removing each unit alone?"

    def calls(self, n_units: int) -> tuple[int, int]:
        """One per unit."""
        return n_units, n_units

    def unsuited(self, case: Case) -> str:
        """There must be something to rank."""
        return "one unit has no rank" if case.n_units < 2 else ""

    def plan(self, case: Case, effort: Effort) -> Inquiry:
        """One round of all coalitions that lack one unit."""
        values = yield coalition.without_each(case.n_units)
        drops = -values + 0.0
        both = ~np.isnan(drops) & ~np.isnan(case.scores)
        return self.figure(
            kendall(case.scores[both], drops[both]),
            scale="rank correlation",
            # The mean over all orders, exactly.
            random=0.0,
            details={"drops": plain(drops)},
        )


def kendall(a: Floats, b: Floats) -> float:
    """Kendall's tau-b (Kendall 1945); NaN when one side is constant. Memory linear in n."""
    concordance = pairs_a = pairs_b = 0.0
    for i in range(len(a) - 1):
        sign_a, sign_b = np.sign(a[i + 1 :] - a[i]), np.sign(b[i + 1 :] - b[i])
        concordance += float(sign_a @ sign_b)
        pairs_a += float(np.abs(sign_a).sum())
        pairs_b += float(np.abs(sign_b).sum())
    if pairs_a == 0 or pairs_b == 0:
        return float("nan")
    return concordance / float(np.sqrt(pairs_a * pairs_b))
