# SPDX-License-Identifier: Apache-2.0
"""What measures over random coalitions share: they must be ones that the attribution never saw."""

from __future__ import annotations

import numpy as np

from pizza.errors import ConfigError
from pizza.evaluation.case import Bools, Case, Floats
from pizza.evaluation.measure import Measure

FEWEST = 16
MOST = 256
_ENOUGH = 6
"""Fewer values have no rank correlation and no variance worth the name."""


class HeldOutMeasure(Measure):
    """Takes random coalitions; more budget means more of them.

    Args:
        p: Probability with which a unit is present.
    """

    def __init__(self, p: float = 0.5) -> None:
        if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 < p < 1:
            raise ConfigError(
                f"p of {self.name!r} is the share of units that are present, between 0 and 1, "
                f"not {p!r}."
            )
        super().__init__(**({} if p == 0.5 else {"p": p}))
        self.p = float(p)

    @property
    def held_out(self) -> float | None:
        """``p``."""
        return self.p

    def calls(self, n_units: int) -> tuple[int, int]:
        """16 to 256, and never more than there are."""
        there = 2**n_units - 1
        return min(FEWEST, there), min(MOST, there)

    def unsuited(self, case: Case) -> str:
        """There must be coalitions that the attribution did not use."""
        left = len(case.held_out(_ENOUGH, self.p))
        if left >= _ENOUGH:
            return ""
        return (
            f"it needs {_ENOUGH} coalitions that the attribution did not use, and {left} of "
            f"{2**case.n_units - 1} are left"
        )

    def doubts(self, rows: Bools, values: Floats) -> tuple[str, ...]:
        """What a reader should know of these values."""
        found = []
        if len(values) < len(rows):
            found.append(f"{len(rows) - len(values)} of {len(rows)} values are not defined")
        if not len(values) or np.ptp(values) == 0:
            found.append("the output was the same in every coalition: there is nothing to explain")
        return tuple(found)
