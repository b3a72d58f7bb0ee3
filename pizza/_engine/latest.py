# SPDX-License-Identifier: Apache-2.0
"""Watch one piece of work: its newest report whenever asked, then its result."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pizza._engine.clock import Clock

S = TypeVar("S")
R = TypeVar("R")


@asynccontextmanager
async def latest(
    run: Callable[[Callable[[S], None]], Awaitable[R]], clock: Clock, every_s: float = 0.0
) -> AsyncIterator[AsyncIterator[S | R]]:
    """Await ``run(report)`` in a task of its own and iterate over its reports and its result.

    ``async with latest(run, clock) as steps: async for step in steps: ...``

    Only the newest report waits to be taken: a slow consumer misses some, slows nobody down and
    takes no memory. The result is the last step. An exception of ``run`` is raised by the
    iteration. Leaving the block cancels the task and waits for it.

    Args:
        run: Takes a function to report with, which may be called at any time on the loop.
        clock: Time.
        every_s: Shortest time between two reports, seconds. The result does not wait for it.
    """
    reported: list[S] = []
    results: list[R] = []
    errors: list[BaseException] = []
    news = asyncio.Event()
    over = asyncio.Event()

    def report(step: S) -> None:
        reported[:] = [step]
        news.set()

    async def work() -> None:
        try:
            results.append(await run(report))
        except BaseException as error:  # whatever it is, it belongs to the consumer
            errors.append(error)
            if not isinstance(error, Exception):
                raise  # a cancelled task is to be seen as one
        finally:
            over.set()
            news.set()

    async def steps() -> AsyncIterator[S | R]:
        while True:
            await news.wait()
            news.clear()
            if reported:
                yield reported.pop()
                if every_s > 0:
                    with contextlib.suppress(TimeoutError):
                        async with clock.timeout(every_s):
                            await over.wait()
            if not reported and errors:
                raise errors[0]
            if not reported and results:
                yield results[0]
                return

    group = asyncio.TaskGroup()
    await group.__aenter__()
    task = group.create_task(work(), name="pizza-watched")
    try:
        yield steps()
    finally:
        task.cancel()
        # The task reports and never fails, so the group has nothing to add to the caller's own
        # exception, and must not wrap it.
        await group.__aexit__(None, None, None)
