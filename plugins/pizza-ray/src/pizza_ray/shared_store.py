# SPDX-License-Identifier: Apache-2.0
"""The answers of a run, kept by the coordinator: they outlive the worker that paid for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from pizza.abc import ResponseCache
from pizza.errors import PizzaError
from pizza.gate import SystemClock
from pizza_ray.wire import LinkError, to_error, to_fault

if TYPE_CHECKING:
    from pizza.gate import Clock
    from pizza_ray.wire import Fault, Link

T = TypeVar("T")
R = TypeVar("R")

_APART_S = 0.02
"""Shortest time between two calls of a kind."""
_MOST = 64
"""Waiting tasks whose values go in one call: 4 KB a value, 40 values a task at most."""


class SharedStore(ResponseCache):
    """Gets and puts over a link. All that wait at one moment go in one call.

    `put` returns when the coordinator has stored the value.

    Args:
        link: The way to the coordinator.
        clock: The clock; the system's when ``None``.
    """

    def __init__(self, link: Link, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        self._link = link
        self._gets: _Together[Sequence[str], dict[str, bytes]] = _Together(self._get, clock)
        self._puts: _Together[Mapping[str, bytes], None] = _Together(self._put, clock)

    async def get(self, key: str) -> bytes | None:
        """See `ResponseCache.get`.

        Raises:
            CacheError: The store cannot be read, or could not be written.
            LinkError: The coordinator is gone.
        """
        return (await self.get_many((key,))).get(key)

    async def put(self, key: str, value: bytes) -> None:
        """See `ResponseCache.put`.

        Raises:
            CacheError: The store cannot be written.
            LinkError: The coordinator is gone.
        """
        await self.put_many({key: value})

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See `ResponseCache.get_many`; raises as `get` does."""
        found = await self._gets.ask(keys)
        return {key: found[key] for key in keys if key in found}

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        """See `ResponseCache.put_many`; raises as `put` does."""
        await self._puts.ask(values)

    async def aclose(self) -> None:
        """Wait for what is being stored; the coordinator's store stays open."""
        await self._puts.settle()
        await self._gets.settle()

    async def _get(self, wanted: list[Sequence[str]]) -> tuple[dict[str, bytes], Fault | None]:
        keys = list(dict.fromkeys(key for some in wanted for key in some))
        return await self._link.get_many(keys)

    async def _put(self, given: list[Mapping[str, bytes]]) -> tuple[None, Fault | None]:
        values = {key: value for some in given for key, value in some.items()}
        return None, await self._link.put_many(values)


class _Together(Generic[T, R]):
    """Things that are wanted at the same moment go in one call; one call at a time.

    Args:
        call: Does it: an outcome for all, or why there is none.
        clock: The clock.
    """

    def __init__(
        self, call: Callable[[list[T]], Awaitable[tuple[R, Fault | None]]], clock: Clock
    ) -> None:
        self._call = call
        self._clock = clock
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._calling: asyncio.Task[None] | None = None

    async def ask(self, thing: T) -> R:
        """The outcome of the call that this went with."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((thing, future))
        if self._calling is None or self._calling.done():
            self._calling = asyncio.create_task(self._run(), name="pizza-store")
        return await future

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        while self._calling is not None and not self._calling.done():
            await asyncio.wait((self._calling,))

    async def _run(self) -> None:
        while self._waiting:
            began = self._clock.now()
            batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            await self._do(batch)
            await self._clock.sleep(began + _APART_S - self._clock.now())

    async def _do(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        fault: Fault | None
        try:
            outcome, fault = await self._call([thing for thing, _ in batch])
        except PizzaError as error:
            fault = to_fault(error)
        except Exception as error:  # a bug here must not leave anybody waiting for ever
            fault = to_fault(LinkError(f"the link failed with {type(error).__name__}: {error}"))
        for _, future in batch:
            if future.done():
                continue
            if fault is not None:
                future.set_exception(to_error(fault))
            else:
                future.set_result(outcome)
