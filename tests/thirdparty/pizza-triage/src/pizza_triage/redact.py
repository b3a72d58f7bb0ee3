# SPDX-License-Identifier: Apache-2.0
"""The perturbation strategy: black bars, as on a printed page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pizza.abc import PerturbationStrategy
from pizza.errors import ConfigError
from pizza.prompt import Edit, Prompt, Unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Redact(PerturbationStrategy):
    """Puts a mark in the place of every character of an absent unit that is not white space.

    Args:
        mark: One character.
    """

    def __init__(self, mark: str = "█") -> None:
        if len(mark) != 1 or mark.isspace():
            raise ConfigError(f"mark is one visible character, not {mark!r}.")
        self._mark = mark

    def render(self, prompt: Prompt, units: Sequence[Unit], present: NDArray[np.bool_]) -> Prompt:
        """The prompt with absent units blacked out; its length stays the same."""
        return prompt.edited(
            [
                Edit(
                    message=unit.message,
                    start=unit.start,
                    end=unit.end,
                    text="".join(c if c.isspace() else self._mark for c in unit.text),
                )
                for unit, kept in zip(units, present, strict=True)
                if not kept
            ]
        )
