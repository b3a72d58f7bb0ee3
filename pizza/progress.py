# SPDX-License-Identifier: Apache-2.0
"""What is known of an attribution while it runs: counts, and what was measured so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pizza.completion import Completion, frozen_array
from pizza.prompt import Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Partial", "Progress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an attribution is.

    Attributes:
        phase: ``"reference"`` (the unperturbed prompt) or ``"coalitions"``.
        done: Coalitions measured so far.
        total: Coalitions that are known to be needed; grows when the method adapts.
        calls: Requests sent so far, retries included.
        cache_hits: Answers from the cache so far.
    """

    phase: Literal["reference", "coalitions"]
    done: int
    total: int
    calls: int
    cache_hits: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Partial:
    """What was measured of an attribution so far.

    Attributes:
        units: The prompt's units, ``n_units`` of them, in order.
        output: The reference output, or ``None`` before it is known.
        progress: How far it is.
        coalitions: ``(n, n_units)`` bool, True = the unit was present, in the order in which they
            became known. Read-only.
        effects: ``(n,)``: the effect on the whole output under the first metric, in its unit.
            Positive = the output became less like the reference. Read-only.
    """

    units: tuple[Unit, ...]
    output: Completion | None
    progress: Progress
    coalitions: NDArray[np.bool_]
    effects: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "coalitions", frozen_array(self.coalitions, dtype=bool))
        object.__setattr__(self, "effects", frozen_array(self.effects))

    @property
    def unit_scores(self) -> NDArray[np.float64]:
        """A first view of the units' scores ``(n_units,)``; NaN where a unit was never absent.

        While no unit was absent twice, every effect is shared evenly among the units that were
        absent: with ``leave-one-out`` these are the final scores. Else they are a ridge regression
        of the effects on absence, through zero for the whole prompt, with a penalty of one
        coalition: ``(A'A + I)^-1 A'e`` (Hoerl & Kennard 1970, eq. 2.1, k = 1). It shows where the
        scores are heading; the method's own estimate replaces it in the attribution.

        Cost: no request; ``O(n * n_units * min(n, n_units))`` operations at every reading. With
        more than a thousand units read it in a thread.
        """
        known = np.isfinite(self.effects)
        absent = (~self.coalitions[known]).astype(float)
        effects = self.effects[known]
        times = absent.sum(axis=0)
        if times.max(initial=0.0) <= 1:
            scores = absent.T @ (effects / np.maximum(absent.sum(axis=1), 1.0))
        else:
            scores = _ridge(absent, effects)
        scores[times == 0] = np.nan
        return frozen_array(scores + 0.0)


def _ridge(absent: NDArray[np.float64], effects: NDArray[np.float64]) -> NDArray[Any]:
    """``(A'A + I)^-1 A'e``, through the smaller of the two Gram matrices."""
    n, p = absent.shape
    if p <= n:
        solved: NDArray[Any] = np.linalg.solve(absent.T @ absent + np.eye(p), absent.T @ effects)
        return solved
    dual: NDArray[Any] = absent.T @ np.linalg.solve(absent @ absent.T + np.eye(n), effects)
    return dual
