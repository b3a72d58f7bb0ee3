# SPDX-License-Identifier: Apache-2.0
"""The common shape of strategies that put one text in the place of each absent unit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pizza.abc import PerturbationStrategy, Resources
from pizza.errors import PluginContractError
from pizza.prompt import Edit, Prompt, Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray


_T = TypeVar("_T")


def require_prepared(
    strategy: PerturbationStrategy, made: Sequence[_T] | None, units: Sequence[Unit]
) -> Sequence[_T]:
    """What `prepare` made, one element per unit.

    Raises:
        PluginContractError: `prepare` was not called, or with other units.
    """
    if made is None or len(made) != len(units):
        raise PluginContractError(
            f"{type(strategy).__name__}.render was called with {len(units)} units, prepare with "
            f"{'none' if made is None else len(made)}: call prepare(prompt, units, resources) "
            "first."
        )
    return made


class ReplacementStrategy(PerturbationStrategy):
    """Each unit has one replacement, chosen in `prepare`, whatever else is absent.

    That is what makes values comparable within an attribution: two coalitions that both lack a
    unit show the model the same text in its place.
    """

    _texts: tuple[str, ...] | None = None

    @abstractmethod
    def replacements(
        self, prompt: Prompt, units: Sequence[Unit], resources: Resources
    ) -> Sequence[str]:
        """The text that stands in for each unit, in the units' order."""

    def prepare(self, prompt: Prompt, units: Sequence[Unit], resources: Resources) -> None:
        """Choose the replacements."""
        self._texts = tuple(self.replacements(prompt, units, resources))

    def render(self, prompt: Prompt, units: Sequence[Unit], present: NDArray[np.bool_]) -> Prompt:
        """The prompt with each absent unit's replacement exactly where the unit stood.

        Args:
            prompt: The whole prompt.
            units: The units that `prepare` saw.
            present: ``(n_units,)``, True = kept.

        Raises:
            PluginContractError: `prepare` was not called with these units.
        """
        texts = require_prepared(self, self._texts, units)
        edits = []
        for index in (~np.asarray(present, dtype=bool)).nonzero()[0].tolist():
            unit = units[index]
            edits.append(
                Edit(message=unit.message, start=unit.start, end=unit.end, text=texts[index])
            )
        return prompt.edited(edits)
