# SPDX-License-Identifier: Apache-2.0
"""The linear datamodeling score: do sums of scores rank coalitions that nobody has used?"""

from __future__ import annotations

import math

import numpy as np

from pizza.evaluation.case import Case, Effort, Floats
from pizza.evaluation.held_out import HeldOutMeasure
from pizza.evaluation.measure import Inquiry, spearman


class LinearDatamodelingScore(HeldOutMeasure):
    """``Spearman(sum of the scores of present units, v(S))`` over fresh random coalitions.

    Source: TRAK (Park et al. 2023), for prompts ContextCite (Cohen-Wang et al. 2024). The standard
    error is that of Bonett & Wright 2000, ``(1 - r^2) sqrt((1 + r^2 / 2) / (m - 3))``. The control
    is the mean over shuffled scores: it is above 0 where the number of units that are left says
    much.

    Args:
        p: Probability with which a unit is present. 0.8 or 0.9 is closer to the prompt as it is.

    Cost: 16 to 256 calls.
    """

    name = "lds"
    higher_is_better = True
    meaning = "do the scores rank unseen changes of the prompt?"

    def plan(self, case: Case, effort: Effort) -> Inquiry:
        """One round of held-out coalitions."""
        rows = case.held_out(effort.held_out, self.p)
        values = yield rows
        known = ~np.isnan(values)
        inside, values = rows[known].astype(np.float64), values[known]
        sums = inside @ case.filled
        value = spearman(sums, values)
        shuffled = [spearman(s, values) for s in (inside @ case.shuffled().T).T]
        control = np.array(shuffled)[~np.isnan(shuffled)]
        return self.figure(
            value,
            scale="rank correlation",
            standard_error=_standard_error(value, len(values)),
            random=float(control.mean()) if len(control) else None,
            details={
                "p": self.p,
                "coalitions": len(values),
                "pearson": _pearson(sums, values),
            },
            warnings=self.doubts(rows, values),
        )


def _standard_error(r: float, m: int) -> float | None:
    if math.isnan(r) or m <= 3:
        return None
    return (1 - r * r) * math.sqrt((1 + r * r / 2) / (m - 3))


def _pearson(a: Floats, b: Floats) -> float | None:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])
