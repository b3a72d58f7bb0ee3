# SPDX-License-Identifier: Apache-2.0
"""What every measure is: a generator that asks for values of coalitions, once, and concludes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from typing import Any, ClassVar

import numpy as np

from pizza.evaluation.case import Bools, Case, Effort, Floats
from pizza.evaluation.result import Faithfulness
from pizza.methods._fits.quality import rank_correlation

Inquiry = Generator[Bools, Floats, Faithfulness]
"""Yields coalitions ``(m, n_units)`` once, receives values ``(m,)``, returns the figure."""


class Measure(ABC):
    """One way to hold an attribution against the model; does no input or output.

    Values are ``v(S) = -effect(S)`` of the row of the attribution that is evaluated, so
    ``v(all) = 0``. NaN = not known: it is left out. Coalitions that several measures ask for are
    paid for once.

    Attributes:
        name: As it is asked for.
        higher_is_better: Which way is more faithful.
        meaning: What the figure says, in a few words.
        only_with_room: When nobody names it, it is taken only where the budget allows it.
        label: The name, with the options when there are any.
    """

    name: ClassVar[str]
    higher_is_better: ClassVar[bool]
    meaning: ClassVar[str]
    only_with_room: ClassVar[bool] = False

    def __init__(self, **options: Any) -> None:
        inner = ",".join(f"{key}={value}" for key, value in options.items())
        self.label = f"{self.name}:{inner}" if inner else self.name

    @abstractmethod
    def calls(self, n_units: int) -> tuple[int, int]:
        """Fewest and most coalitions (the full one not counted) when nothing was measured yet."""

    def unsuited(self, case: Case) -> str:
        """Why the measure cannot be taken here; empty when it can."""
        return ""

    @property
    def held_out(self) -> float | None:
        """How often units are present in the random coalitions that more budget adds to."""
        return None

    @abstractmethod
    def plan(self, case: Case, effort: Effort) -> Inquiry:
        """The generator."""

    def figure(
        self,
        value: float,
        *,
        scale: str,
        standard_error: float | None = None,
        random: float | None = None,
        details: Mapping[str, Any] | None = None,
        warnings: tuple[str, ...] = (),
    ) -> Faithfulness:
        """The result, with what is known of the measure itself."""
        return Faithfulness(
            measure=self.label,
            value=float(value),
            scale=scale,
            higher_is_better=self.higher_is_better,
            standard_error=standard_error,
            random=random,
            details=details or {},
            warnings=warnings,
        )


def plain(values: Floats) -> list[float | None]:
    """Floats for JSON: NaN is ``None``."""
    return [None if np.isnan(value) else float(value) for value in values]


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation; NaN when one side is constant. What only rounding tells apart is equal."""
    return rank_correlation(_levelled(a), _levelled(b))


def _levelled(x: Floats) -> Floats:
    largest = float(np.abs(x).max(initial=0.0))
    return np.round(x / largest, 11) if largest > 0 else x


def mean_of_known(values: Floats) -> float:
    """The mean of what is not NaN; NaN when that is nothing."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
