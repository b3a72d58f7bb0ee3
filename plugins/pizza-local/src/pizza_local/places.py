# SPDX-License-Identifier: Apache-2.0
"""Where the messages of a chat stand in the text that a chat template makes of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_OPEN, _CLOSE = "\ue000{}\ue001", "\ue002{}\ue001"
_MARKED = re.compile("\ue000(\\d+)\ue001.*?\ue002\\1\ue001", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """``length`` code points of a message, from ``start`` on, stand at ``at`` of the whole text."""

    message: int
    at: int
    start: int
    length: int


def marked(contents: Sequence[str]) -> list[str]:
    """The contents between marks that say which of them it is."""
    return [
        f"{_OPEN.format(index)}{content}{_CLOSE.format(index)}"
        for index, content in enumerate(contents)
    ]


def framed(text: str, frame: str, contents: Sequence[str]) -> list[Place] | None:
    """Places of the contents in ``text``, from where they stand between marks in ``frame``.

    The marks keep a template from stripping, which it may do with each content in ``text``.
    """
    places: list[Place] = []
    at, last = 0, 0
    found = list(_MARKED.finditer(frame))
    for number, match in enumerate(found):
        before = frame[last : match.start()]
        last = match.end()
        if not text.startswith(before, at):
            return None
        at += len(before)
        index = int(match[1])
        following = found[number + 1].start() if number + 1 < len(found) else len(frame)
        after = frame[last:following]
        shown = next(
            (s for s in _stripped(contents[index]) if text.startswith(s + after, at)), None
        )
        if shown is None:
            return None
        start = contents[index].index(shown) if shown else 0
        places.append(Place(message=index, at=at, start=start, length=len(shown)))
        at += len(shown)
    whole = text[at:] == frame[last:]
    shown_all = {place.message for place in places} == set(range(len(contents)))
    return places if whole and shown_all else None


def _stripped(content: str) -> tuple[str, ...]:
    """What a template may show of a content, the longest first."""
    return content, content.lstrip("\n"), content.lstrip(), content.rstrip(), content.strip()
