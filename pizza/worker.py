# SPDX-License-Identifier: Apache-2.0
"""One thread that does blocking work for an event loop, and ends when it is closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


class Worker:
    """A thread of its own for a model that computes in this process: the event loop never waits.

    Work is done one piece after the other. It is given an event that is set when its caller was
    cancelled; it should look at it from time to time and leave early.

    Args:
        name: Prefix of the thread's name.
    """

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._closed = False

    async def run(self, work: Callable[[threading.Event], Result]) -> Result:
        """Do ``work`` on the thread and return its result.

        Args:
            work: Is called with the event.
        """
        stop = threading.Event()
        future = self._executor.submit(work, stop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            stop.set()
            raise

    async def stream(
        self, work: Callable[[threading.Event, Callable[[Result], None]], None]
    ) -> AsyncGenerator[Result, None]:
        """Do ``work`` on the thread and yield what it emits, as it is emitted.

        Args:
            work: Is called with the event and a function that emits one result.
        """
        stop = threading.Event()
        loop = asyncio.get_running_loop()
        emitted: asyncio.Queue[Result | _End] = asyncio.Queue()

        def put(item: Result | _End) -> None:
            if not stop.is_set():
                loop.call_soon_threadsafe(emitted.put_nowait, item)

        def body() -> None:
            try:
                work(stop, put)
            except BaseException as error:
                put(_End(error))
            else:
                put(_End(None))

        self._executor.submit(body)
        try:
            while not isinstance(item := await emitted.get(), _End):
                yield item
            if item.error is not None:
                raise item.error
        finally:
            stop.set()

    async def aclose(self) -> None:
        """Wait until the thread has left its last piece of work, then end it.

        Who is cancelled while waiting leaves a thread that ends by itself after that work.
        """
        if self._closed:
            return
        self._closed = True
        idle = False
        try:
            # Joining a busy thread would block the loop; behind an empty piece of work it is idle.
            await self.run(lambda _: None)
            idle = True
        finally:
            self._executor.shutdown(wait=idle)


class _End:
    """The end of a stream, and what it failed with."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
