# SPDX-License-Identifier: Apache-2.0
"""Single flight: identical requests that are under way at the same time are sent once.

The first to ask leads, the others follow and get what the leader gets. A follower that is
cancelled touches nobody. When the leader is cancelled the oldest follower leads on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Flights(Generic[T]):
    """What is under way, by key. An entry lives from `lead` until `land` or the last `abandon`."""

    __slots__ = ("_flights",)

    def __init__(self) -> None:
        self._flights: dict[str, deque[asyncio.Future[T | None]]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def lead(self, key: str) -> bool:
        """Whether the caller is the first, and now leads: it must call `land` or `abandon`."""
        if key in self._flights:
            return False
        self._flights[key] = deque()
        return True

    async def follow(self, key: str) -> T | None:
        """Wait for the leader's outcome; ``None`` = the leader is gone and the caller leads now."""
        future: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        self._flights[key].append(future)
        try:
            return await future
        except asyncio.CancelledError:
            # The lead may have been handed over in the moment of the cancellation.
            if future.done() and not future.cancelled() and future.result() is None:
                self.abandon(key)
            future.cancel()
            raise

    def land(self, key: str, outcome: T) -> None:
        """The leader has an outcome: all followers get it."""
        for future in self._flights.pop(key, ()):
            if not future.done():
                future.set_result(outcome)

    def abandon(self, key: str) -> None:
        """The leader was cancelled: the oldest follower that still waits takes over."""
        followers = self._flights.get(key)
        while followers:
            future = followers.popleft()
            if not future.done():
                future.set_result(None)
                return
        self._flights.pop(key, None)
