# SPDX-License-Identifier: Apache-2.0
"""Absent units are deleted, with as much white space as tidy text needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pizza.abc import PerturbationStrategy, Resources
from pizza.perturbations._replacement import require_prepared
from pizza.prompt import Edit, Prompt, Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a unit stands: the white space around it that may go with it.

    Attributes:
        low: Where the white space before the unit starts.
        high: Where the white space after it ends.
        joins: Whether only white space stands between the unit and the next one.
        first, last: Whether nothing but white space stands before / after it in its message.
    """

    low: int
    high: int
    joins: bool
    first: bool
    last: bool


class Delete(PerturbationStrategy):
    r"""Absent units go, each with the white space before it.

    At the start of a message it is the white space after it that goes, and where white space
    before and after differ, line breaks win: deleting the first word of a line does not join the
    line to the one above. Precisely: when a run of neighbouring units goes, one stretch of the
    white space around and between them stays, the one with most line breaks, the last among
    equals; none at the start of a message. White space in fixed parts always stays.
    All units may be absent; a message of which nothing is left is dropped (`Prompt.edited`).

    So ``"a b c"`` without b is ``"a c"``, without a ``"b c"``; ``"a\nb c"`` without b is
    ``"a\nc"``.
    """

    def __init__(self) -> None:
        self._places: tuple[_Place, ...] | None = None

    def prepare(self, prompt: Prompt, units: Sequence[Unit], resources: Resources) -> None:
        """Find the white space around each unit once."""
        self._places = _places(prompt, units)

    def render(self, prompt: Prompt, units: Sequence[Unit], present: NDArray[np.bool_]) -> Prompt:
        """The prompt without the absent units.

        Args:
            prompt: The whole prompt.
            units: The units that `prepare` saw.
            present: ``(n_units,)``, True = kept.

        Raises:
            PluginContractError: `prepare` was not called with these units.
        """
        places = require_prepared(self, self._places, units)
        absent = (~np.asarray(present, dtype=bool)).nonzero()[0].tolist()
        edits: list[Edit] = []
        run: list[int] = []
        for index in absent:
            if run and not (index == run[-1] + 1 and places[run[-1]].joins):
                edits.append(_deletion(prompt, units, places, run))
                run = []
            run.append(index)
        if run:
            edits.append(_deletion(prompt, units, places, run))
        return prompt.edited(edits)


def _deletion(
    prompt: Prompt, units: Sequence[Unit], places: Sequence[_Place], run: Sequence[int]
) -> Edit:
    """The edit that deletes neighbouring units."""
    message = units[run[0]].message
    low, high = places[run[0]].low, places[run[-1]].high
    if places[run[0]].first:
        kept = ""
    else:
        text = prompt.messages[message].text
        if "\n" not in text[low:high]:
            last = units[run[-1]].end
            return Edit(message=message, start=low, end=high, text=text[last:high])
        starts = [low, *(units[index].end for index in run)]
        ends = [*(units[index].start for index in run), high]
        gaps = [text[start:end] for start, end in zip(starts, ends, strict=True)]
        # At the end of a message only what followed the last unit can stay.
        kept = gaps[-1] if places[run[-1]].last else max(reversed(gaps), key=_line_breaks)
    return Edit(message=message, start=low, end=high, text=kept)


def _line_breaks(gap: str) -> int:
    return gap.count("\n")


def _places(prompt: Prompt, units: Sequence[Unit]) -> tuple[_Place, ...]:
    places: list[_Place] = []
    free = [prompt.free_spans(index) for index in range(len(prompt.messages))]
    at = 0
    for index, unit in enumerate(units):
        text = prompt.messages[unit.message].text
        before = _same_message(units, index - 1, unit)
        after = _same_message(units, index + 1, unit)
        if before is None:
            at = 0
        spans = free[unit.message]
        while spans[at][1] <= unit.start:
            at += 1
        lowest, highest = spans[at]
        if before is not None and before.end > lowest:
            lowest = before.end
        if after is not None and after.start < highest:
            highest = after.start
        low = lowest + len(text[lowest : unit.start].rstrip())
        high = highest - len(text[unit.end : highest].lstrip())
        places.append(
            _Place(
                low=low,
                high=high,
                joins=after is not None and high == after.start,
                first=low == 0,
                last=high == len(text),
            )
        )
    return tuple(places)


def _same_message(units: Sequence[Unit], index: int, unit: Unit) -> Unit | None:
    if 0 <= index < len(units) and units[index].message == unit.message:
        return units[index]
    return None
