# SPDX-License-Identifier: Apache-2.0
"""Rendered answers, kept so that a repeated request costs the model nothing."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """An answer as it is sent, but for its id.

    Attributes:
        body: The JSON text.
        mark: What stands in the body in place of the id.
        prompt_tokens, completion_tokens: Its usage.
        reserved_tokens: What a limit is charged with beforehand.
    """

    body: bytes
    mark: bytes
    prompt_tokens: int
    completion_tokens: int
    reserved_tokens: int

    def with_id(self, answer_id: str) -> bytes:
        """The body with an id of its own."""
        return self.body.replace(self.mark, answer_id.encode())


class AnswerCache:
    """The least recently used answers go first once there is no room."""

    def __init__(self, room: int) -> None:
        """Make an empty cache.

        Args:
            room: Bytes of bodies that are kept.
        """
        self._left = room
        self._entries: OrderedDict[str, Rendered] = OrderedDict()

    def get(self, key: str) -> Rendered | None:
        """The answer to a request, or ``None``."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: str, entry: Rendered) -> None:
        """Keep an answer."""
        if (old := self._entries.pop(key, None)) is not None:
            self._left += len(old.body)
        self._entries[key] = entry
        self._left -= len(entry.body)
        while self._left < 0:
            _, oldest = self._entries.popitem(last=False)
            self._left += len(oldest.body)
