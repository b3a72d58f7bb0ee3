# SPDX-License-Identifier: Apache-2.0
"""A clock that tests drive."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pizza._engine.clock import Timeout

T = TypeVar("T")


class _Timer:
    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """Time stands still until `advance` or `run` moves it.

    It sees tasks and timers of the event loop; work on other threads or behind a socket is not
    waited for.

    Example:
        >>> async def example() -> float:
        ...     clock = ManualClock()
        ...     await clock.run(clock.sleep(3600))  # returns at once
        ...     return clock.now()
        >>> asyncio.run(example())
        3600.0

    Args:
        start: What `now` says at first, seconds.
        epoch: What `time` says at first, seconds since the epoch.
    """

    def __init__(self, start: float = 0.0, epoch: float = 1_700_000_000.0) -> None:
        self._now = start
        self._epoch = epoch - start
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = itertools.count()

    def now(self) -> float:
        """Seconds on this clock."""
        return self._now

    def time(self) -> float:
        """Seconds since the epoch, moving with `now`."""
        return self._epoch + self._now

    def call_later(self, seconds: float, callback: Callable[[], object]) -> _Timer:
        """Call ``callback`` once the clock was moved so far."""
        timer = _Timer(self._now + max(0.0, seconds), callback)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was moved so far."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        timer = self.call_later(seconds, wake)
        try:
            await woken
        finally:
            timer.cancel()

    def timeout(self, seconds: float | None) -> Timeout:
        """See `pizza._engine.clock.Clock.timeout`."""
        return Timeout(self, seconds)

    def next_timer(self) -> float:
        """Seconds until the next timer is due; infinity when there is none."""
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] - self._now if self._timers else math.inf

    async def settle(self) -> None:
        """Let every task run until all of them wait for something."""
        ready = getattr(asyncio.get_running_loop(), "_ready", None)
        # Other event loops do not show their queue: there a fixed number of turns has to do.
        turns = 0
        while True:
            await asyncio.sleep(0)
            turns += 1
            if (not ready and turns > 1) if ready is not None else turns > 50:
                return

    async def advance(self, seconds: float) -> None:
        """Move the clock; every timer on the way fires at its own time, in order."""
        end = self._now + seconds
        await self.settle()
        while self._now + self.next_timer() <= end:
            self._fire()
            await self.settle()
        self._now = max(self._now, end)

    async def run(self, awaitable: Awaitable[T], *, limit: float = math.inf) -> T:
        """Run something to its end, moving the clock whenever everything waits for it.

        Args:
            awaitable: What to run.
            limit: Seconds after which the clock is not moved on, as a guard.

        Raises:
            TimeoutError: Everything waits, and no timer within ``limit`` would change that.
        """
        end = self._now + limit
        async with asyncio.TaskGroup() as group:
            outcome: list[T] = []
            failure: list[BaseException] = []

            async def body() -> None:
                try:
                    outcome.append(await awaitable)
                except Exception as error:  # raised below, not in a group
                    failure.append(error)

            task = group.create_task(body())
            await self.settle()
            while not task.done():
                if self._now + self.next_timer() > end or self.next_timer() == math.inf:
                    task.cancel()
                    failure.append(TimeoutError("everything waits and no timer is due in time"))
                    break
                self._fire()
                await self.settle()
        if failure:
            raise failure[0]
        return outcome[0]

    def _fire(self) -> None:
        when, _, timer = heapq.heappop(self._timers)
        self._now = max(self._now, when)
        callback, timer.callback = timer.callback, None
        if callback is not None:
            callback()
