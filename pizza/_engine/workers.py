# SPDX-License-Identifier: Apache-2.0
"""K workers over one iterator: bounded work, bounded memory, results as they come."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Exception


class _End:
    """Every worker has finished."""


class work(Generic[T, R]):  # noqa: N801 - used like a function: "async with work(...)"
    """Apply ``function(index, item)`` to every item with a fixed number of tasks.

    ``async with work(function, items, workers=8) as results: async for result in results: ...``

    Results come in completion order. Leaving the block cancels the workers and waits for them:
    no task survives it. An exception of ``function`` or of ``items`` is raised by the iteration.
    At most ``workers`` results wait to be taken, so a slow consumer slows the workers down.

    Args:
        function: Called with the item's position from 0 and the item.
        items: Any iterable; taken one by one as workers become free.
        workers: Number of tasks, at least 1.
    """

    def __init__(
        self,
        function: Callable[[int, T], Awaitable[R]],
        items: Iterable[T] | AsyncIterable[T],
        *,
        workers: int,
    ) -> None:
        self._function = function
        self._source = _numbered(items)
        self._workers = workers
        self._taking = asyncio.Lock()
        self._results: asyncio.Queue[R | _Failure | _End] = asyncio.Queue(workers)
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []
        self._running = 0

    async def __aenter__(self) -> AsyncIterator[R]:
        await self._group.__aenter__()
        self._start_one()
        return self._iterate()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        # Workers never fail (they report), so the group has nothing to add to the caller's own
        # exception, and must not wrap it.
        await self._group.__aexit__(None, None, None)
        await self._source.aclose()

    def _start_one(self) -> None:
        self._running += 1
        self._tasks.append(self._group.create_task(self._work()))

    async def _work(self) -> None:
        first = True
        try:
            while True:
                async with self._taking:
                    index, item = await anext(self._source)
                # Whoever finds work lets one more look for it: ten items never start a hundred
                # tasks.
                if first and len(self._tasks) < self._workers:
                    self._start_one()
                first = False
                await self._results.put(await self._function(index, item))
        except StopAsyncIteration:
            pass
        except Exception as error:  # whatever it is, it belongs to the consumer
            await self._results.put(_Failure(error))
        finally:
            self._running -= 1
        if not self._running:
            await self._results.put(_End())

    async def _iterate(self) -> AsyncIterator[R]:
        while True:
            value = await self._results.get()
            if isinstance(value, _Failure):
                raise value.error
            if isinstance(value, _End):
                return
            yield value


async def _numbered(items: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[tuple[int, T], None]:
    index = 0
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield index, item
            index += 1
    else:
        for item in items:
            yield index, item
            index += 1
