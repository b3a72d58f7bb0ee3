# SPDX-License-Identifier: Apache-2.0
"""Answers on their way out of the cache and into it, many at a time."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pizza._engine import codec
from pizza.caches import CacheWarning
from pizza.errors import CacheError, PizzaError

if TYPE_CHECKING:
    from pizza.abc import ResponseCache
    from pizza.completion import Completion

_GROUP = 64
"""Answers that are encoded and stored together: a millisecond of the event loop."""
_MOST = 2 * _GROUP
"""Answers that may wait to be stored while requests are sent: a crash loses what waits."""
_WRITERS = 4
"""Groups that are stored at the same time: one that hangs must not hold up all others."""

_log = logging.getLogger("pizza.scheduler")

Landed = Callable[[bytes | None], None]


class Shelf:
    """Encodes and stores answers in tasks of its own; looks many keys up at once.

    Args:
        cache: Where answers are kept.
        group: Owner of the tasks that store: they must outlive those who asked.
    """

    def __init__(self, cache: ResponseCache, group: asyncio.TaskGroup) -> None:
        self._cache = cache
        self._group = group
        self._waiting: deque[tuple[str, Completion, Landed]] = deque()
        self._writers: set[asyncio.Task[None]] = set()
        self._unstored = 0
        self._room: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        """Answers that are not stored yet."""
        return self._unstored

    # --- out ----------------------------------------------------------------------------------

    async def find(self, keys: Sequence[str]) -> dict[str, tuple[Completion, bytes] | PizzaError]:
        """What is stored under these keys, and what cannot be read; nothing for the others."""
        try:
            values = await self._cache.get_many(keys)
        except Exception:
            # Which of them cannot be read is found out one by one.
            return await self._find_each(keys)
        found: dict[str, tuple[Completion, bytes] | PizzaError] = {}
        for key, data in values.items():
            completion = _decoded(key, data)
            if completion is not None:
                found[key] = completion, data
        return found

    async def _find_each(
        self, keys: Sequence[str]
    ) -> dict[str, tuple[Completion, bytes] | PizzaError]:
        found: dict[str, tuple[Completion, bytes] | PizzaError] = {}
        for key in keys:
            try:
                data = await self._cache.get(key)
            except PizzaError as error:
                found[key] = error
                continue
            except Exception as error:
                found[key] = _unreadable(error)
                continue
            completion = None if data is None else _decoded(key, data)
            if completion is not None and data is not None:
                found[key] = completion, data
        return found

    # --- in -----------------------------------------------------------------------------------

    async def wait_for_room(self) -> None:
        """Wait until few answers wait: what is sent meanwhile could be lost, and paid for again."""
        while self._unstored >= _MOST:
            if self._room is None or self._room.done():
                self._room = asyncio.get_running_loop().create_future()
            # Not the future itself: whoever is cancelled must not take it from the others.
            await asyncio.wait((self._room,))

    def store(self, key: str, completion: Completion, landed: Landed) -> None:
        """Store an answer, with all others that come before the loop turns.

        Args:
            key: Of the request.
            completion: The answer.
            landed: Called once, when the answer is stored or cannot be: with its bytes, or
                ``None`` when there are none.
        """
        self._waiting.append((key, completion, landed))
        self._unstored += 1
        if len(self._writers) < _WRITERS:
            task = self._group.create_task(self._write(), name="pizza-store")
            self._writers.add(task)
            task.add_done_callback(self._writers.discard)

    async def _write(self) -> None:
        try:
            while self._waiting:
                await self._write_group()
        finally:
            # At once, and not when the loop gets to its callback: until then an answer would wait
            # for a writer that has ended.
            if (task := asyncio.current_task()) is not None:
                self._writers.discard(task)

    async def _write_group(self) -> None:
        taken = [self._waiting.popleft() for _ in range(min(_GROUP, len(self._waiting)))]
        packed = {key: _encoded(completion) for key, completion, _ in taken}
        try:
            await self._put({key: data for key, data in packed.items() if data is not None})
        finally:
            # Also when closing gives up on this task: the answers are here and paid for.
            self._land([(packed[key], landed) for key, _, landed in taken])

    async def _put(self, values: dict[str, bytes]) -> None:
        if not values:
            return
        try:
            await self._cache.put_many(values)
        except Exception as error:
            if len(values) == 1:
                _warn(error)
                return
        else:
            return
        for key, value in values.items():
            try:
                await self._cache.put(key, value)
            except Exception as error:
                _warn(error)

    def _land(self, answers: Sequence[tuple[bytes | None, Landed]]) -> None:
        self._unstored -= len(answers)
        if self._room is not None and self._unstored < _MOST and not self._room.done():
            self._room.set_result(None)
        for data, landed in answers:
            landed(data)

    # --- closing ------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Wait until everything is stored."""
        while self._writers:
            await asyncio.wait(tuple(self._writers))

    def give_up(self) -> None:
        """Stop storing: who waits gets his answer, and the next run pays for it again."""
        for task in self._writers:
            task.cancel()
        left = [(None, landed) for _, _, landed in self._waiting]
        self._waiting.clear()
        self._land(left)


def _decoded(key: str, data: bytes) -> Completion | None:
    try:
        return codec.decode(data)
    except codec.DamagedError as error:
        warnings.warn(
            f"the cached answer {key[:12]} is damaged ({error}); it is asked again.",
            CacheWarning,
            stacklevel=2,
        )
        return None


def _encoded(completion: Completion) -> bytes | None:
    try:
        return codec.encode(completion)
    except Exception as error:
        _warn(error)
        return None


def _unreadable(error: Exception) -> CacheError:
    failure = CacheError(
        f"the cache cannot be read: {type(error).__name__}: {error}. Use another one, or none."
    )
    failure.__cause__ = error
    return failure


def _warn(error: Exception) -> None:
    # The answer is here and paid for: it is delivered, and the next run pays again.
    _log.warning("an answer could not be stored: %s", error)
