# SPDX-License-Identifier: Apache-2.0
"""Infidelity: by how much sums of scores miss what random removals take away."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pizza.evaluation.case import Case, Effort, Floats
from pizza.evaluation.held_out import HeldOutMeasure
from pizza.evaluation.measure import Inquiry


class Infidelity(HeldOutMeasure):
    """``E over I of (I . scores - (v(all) - v(all without I)))^2``.

    I holds each unit with probability ``1 - p``. Source: Yeh et al. 2019, definition 2.1, with
    removals as the perturbation. It is in the square of the metric's units; ``normalized`` in the
    details is divided by the variance of what removals take away (1 = no better than a constant),
    and ``rescaled`` is that of the scores times the factor that suits them best: for scores that
    are right up to their unit, like gradients.

    Args:
        p: Probability with which a unit stays.

    Cost: 16 to 256 calls, shared with `LinearDatamodelingScore` of the same ``p``.
    """

    name = "infidelity"
    higher_is_better = False
    meaning = "squared error of predicting what removals take away"

    def plan(self, case: Case, effort: Effort) -> Inquiry:
        """One round of held-out coalitions."""
        rows = case.held_out(effort.held_out, self.p)
        values = yield rows
        known = ~np.isnan(values)
        absent, lost = (~rows[known]).astype(np.float64), -values[known]
        errors = (absent @ case.filled - lost) ** 2
        control = (absent @ case.shuffled().T - lost[:, None]) ** 2
        m = len(errors)
        return self.figure(
            errors.mean() if m else math.nan,
            scale=f"{case.scale} squared",
            standard_error=float(errors.std(ddof=1) / math.sqrt(m)) if m > 1 else None,
            random=float(control.mean()) if m else None,
            details={"p": self.p, "coalitions": m, **_relative(absent @ case.filled, lost, errors)},
            warnings=self.doubts(rows, -lost),
        )


def _relative(said: Floats, lost: Floats, errors: Floats) -> dict[str, Any]:
    """The error as a share of the variance, as it is and with the best factor."""
    variance = float(lost.var()) if len(lost) else 0.0
    energy = float(said @ said)
    factor = float(said @ lost) / energy if energy > 0 else 0.0
    best = float(((factor * said - lost) ** 2).mean()) if len(lost) else math.nan
    some = variance > 0
    return {
        "variance": variance,
        "normalized": float(errors.mean()) / variance if some else None,
        "rescaled": best / variance if some else None,
        "factor": factor,
    }
