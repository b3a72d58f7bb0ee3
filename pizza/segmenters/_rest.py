# SPDX-License-Identifier: Apache-2.0
"""What becomes of the text that a user's spans or pattern do not name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from pizza.errors import ConfigError
from pizza.prompt import Prompt, Unit
from pizza.segmenters._cutting import trim

Rest = Literal["fixed", "units"]


def check_rest(rest: str) -> Rest:
    """``rest`` if it is one of the two.

    Raises:
        ConfigError: It is something else.
    """
    for choice in get_args(Rest):
        if rest == choice:
            return choice  # type: ignore[no-any-return]
    raise ConfigError(f"rest is 'fixed' or 'units', not {rest!r}.")


def with_rest(prompt: Prompt, units: Sequence[Unit], rest: Rest) -> list[Unit]:
    """``units`` (ordered, disjoint, free), with what is free between them as units if wanted."""
    if rest == "fixed":
        return list(units)
    result: list[Unit] = []
    at = 0
    for index in range(len(prompt.messages)):
        for start, end in prompt.free_spans(index):
            while at < len(units) and units[at].message == index and units[at].start < end:
                result += _between(prompt, index, start, units[at].start)
                result.append(units[at])
                start = units[at].end
                at += 1
            result += _between(prompt, index, start, end)
    return result


def _between(prompt: Prompt, message: int, start: int, end: int) -> list[Unit]:
    start, end = trim(prompt.messages[message].text, start, max(start, end))
    return [prompt.unit(message, start, end)] if start < end else []
