# SPDX-License-Identifier: Apache-2.0
"""What was measured so far, for who watches an attribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pizza.completion import Completion
from pizza.progress import Partial, Progress
from pizza.prompt import Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FIRST = 64
"""Coalitions that there is room for at first; doubles."""


class SoFar:
    """Coalitions and effects in the order in which they became known; only ever grows.

    A `Partial` is a view of the rows that are there when it is made. Rows are never changed, so
    making one copies nothing, however often it is done.

    Args:
        units: The prompt's units.
        tell: Called with every `Partial`.
    """

    def __init__(self, units: Sequence[Unit], tell: Callable[[Partial], None]) -> None:
        self._units = tuple(units)
        self._tell = tell
        self._n = 0
        self._coalitions = np.zeros((_FIRST, len(self._units)), dtype=bool)
        self._effects = np.zeros(_FIRST)
        self.output: Completion | None = None

    def add(self, coalition: NDArray[np.bool_], effect: float) -> None:
        """One more coalition ``(n_units,)`` and its effect on the whole output."""
        if self._n == len(self._effects):
            # Views that were handed out keep the old rows.
            self._coalitions = np.concatenate([self._coalitions, np.zeros_like(self._coalitions)])
            self._effects = np.concatenate([self._effects, np.zeros_like(self._effects)])
        self._coalitions[self._n] = coalition
        self._effects[self._n] = effect
        self._n += 1

    def report(self, progress: Progress) -> None:
        """Tell how things stand."""
        self._tell(
            Partial(
                units=self._units,
                output=self.output,
                progress=progress,
                coalitions=_seen(self._coalitions[: self._n]),
                effects=_seen(self._effects[: self._n]),
            )
        )


def _seen(view: NDArray[Any]) -> NDArray[Any]:
    view.setflags(write=False)
    return view
