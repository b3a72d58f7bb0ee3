# SPDX-License-Identifier: Apache-2.0
"""Time, as the engine sees it: everything that waits goes through a `Clock`.

The system's clock is the default. Tests drive `pizza.testing.clock.ManualClock` instead, so no
test ever sleeps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType


class Timer(Protocol):
    """A callback that is due at some time."""

    def cancel(self) -> None:
        """Do not call back."""
        ...


class Clock(Protocol):
    """Tells the time and waits."""

    def now(self) -> float:
        """Monotonic seconds; only differences mean something."""
        ...

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` on the event loop after so many seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def timeout(self, seconds: float | None) -> Timeout:
        """``async with clock.timeout(2.0):`` raises `TimeoutError` when the block takes longer.

        With ``None`` it takes as long as it takes, but can still be ended by `Timeout.expire`.
        """
        ...


class Timeout:
    """Cancels the block that it guards, after a time or when told to, and turns that into an error.

    Works as `asyncio.timeout` does, but on any `Clock`, and can be ended early by `expire`.
    """

    __slots__ = ("_cancelling", "_clock", "_expired", "_seconds", "_task", "_timer")

    def __init__(self, clock: Clock, seconds: float | None) -> None:
        self._clock = clock
        self._seconds = seconds
        self._task: asyncio.Task[object] | None = None
        self._timer: Timer | None = None
        self._cancelling = 0
        self._expired = False

    def expired(self) -> bool:
        """Whether the time was up before the block ended."""
        return self._expired

    def expire(self) -> None:
        """End the block now."""
        if self._task is not None and not self._expired:
            self._expired = True
            self._task.cancel()

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a timeout guards a block of a task, and none is running.")
        self._task = task
        self._cancelling = task.cancelling()
        if self._seconds is not None:
            self._timer = self._clock.call_later(self._seconds, self.expire)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
        if not self._expired or task is None:
            return
        # Somebody else may have cancelled the task as well; then the cancellation goes on.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            limit = "allowed" if self._seconds is None else f"{self._seconds:g} s"
            raise TimeoutError(f"took longer than {limit}") from error


class SystemClock:
    """The machine's own clock and the running event loop's timers."""

    __slots__ = ()

    def now(self) -> float:
        """See `Clock.now`."""
        return time.monotonic()

    def time(self) -> float:
        """See `Clock.time`."""
        return time.time()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """See `Clock.call_later`."""
        return asyncio.get_running_loop().call_later(seconds, callback)

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> Timeout:
        """See `Clock.timeout`."""
        return Timeout(self, seconds)
