# SPDX-License-Identifier: Apache-2.0
"""One thread that does blocking work for an event loop, and ends when it is closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


class Worker:
    """A thread of its own for the model: the event loop never waits for numpy."""

    def __init__(self, name: str) -> None:
        """Prepare the thread; it starts with the first call.

        Args:
            name: Prefix of the thread's name.
        """
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, work: Callable[[threading.Event], Result]) -> Result:
        """Do ``work`` on the thread; calls are done one after the other.

        Args:
            work: Is given an event that is set when the caller was cancelled. It should look at
                it from time to time and leave early.
        """
        stop = threading.Event()
        future = self._executor.submit(work, stop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            stop.set()
            raise

    async def aclose(self) -> None:
        """Wait until the thread has left its last piece of work, then end it."""
        # Joining a busy thread would block the loop; behind an empty piece of work it is idle.
        await self.run(lambda _: None)
        self._executor.shutdown(wait=True)
