# SPDX-License-Identifier: Apache-2.0
"""One timer for all attempts under way, which all may take equally long."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pizza._engine.clock import Clock, Timeout, Timer


class Deadlines:
    """Ends blocks that take too long. Blocks are added in the order in which their time is up.

    A timer of its own for every attempt would be made and cancelled for nothing nearly always.

    Args:
        clock: The clock.
        seconds: How long each block may take, or ``None``: as long as it takes.
    """

    def __init__(self, clock: Clock, seconds: float | None) -> None:
        self._clock = clock
        self._seconds = seconds
        self._until: dict[Timeout, float] = {}
        self._timer: Timer | None = None

    def __len__(self) -> int:
        """Blocks under way."""
        return len(self._until)

    def add(self, timeout: Timeout) -> None:
        """A block begins now."""
        if self._seconds is None:
            self._until[timeout] = 0.0
            return
        self._until[timeout] = self._clock.now() + self._seconds
        if self._timer is None:
            self._timer = self._clock.call_later(self._seconds, self._ring)

    def discard(self, timeout: Timeout) -> None:
        """A block is over."""
        self._until.pop(timeout, None)

    def expire_all(self) -> None:
        """End all blocks now, and never ring again."""
        self._seconds = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for timeout in tuple(self._until):
            timeout.expire()

    def _ring(self) -> None:
        self._timer = None
        now = self._clock.now()
        for timeout, until in tuple(self._until.items()):
            if until > now:
                self._timer = self._clock.call_later(until - now, self._ring)
                return
            timeout.expire()
