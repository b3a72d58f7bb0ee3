# SPDX-License-Identifier: Apache-2.0
"""Ways to a coordinator in the same process: slow ones, broken ones, and who talks over them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from pizza_ray.coordinator import Coordinator
from pizza_ray.leasing import LeasedGate
from pizza_ray.wire import Ask, Batch, Delivery, LinkError, Report

from pizza.limits import Spent
from pizza.testing.clock import ManualClock

T = TypeVar("T")

ONE = Spent(calls=1, tokens=10)


def batch(
    *,
    asks: list[Ask] | None = None,
    cancels: list[int] | None = None,
    reports: list[Report] | None = None,
    bars: list[Any] | None = None,
) -> Batch:
    return Batch(asks or [], cancels or [], reports or [], bars or [])


def ask(number: int, ticket: int = 0, tokens: int = 10) -> Ask:
    return Ask(number, ticket or number, 1, tokens, 0.0)


class Delayed:
    """A way that takes time, both there and back, and counts the calls."""

    def __init__(
        self, coordinator: Coordinator, clock: ManualClock, delay_s: Callable[[], float]
    ) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._delay_s = delay_s
        self.broken = False
        self.calls = 0

    async def register(self, worker: str, incarnation: int) -> Any:
        return await self._over(lambda: self._coordinator.register(worker, incarnation))

    async def exchange(self, worker: str, incarnation: int, said: Batch, hold_s: float) -> Delivery:
        return await self._over(
            lambda: self._coordinator.exchange(worker, incarnation, said, hold_s)
        )

    async def lost(self, worker: str, incarnation: int | None = None) -> None:
        await self._over(lambda: self._coordinator.lost(worker, incarnation))

    async def get_many(self, keys: Any) -> Any:
        return await self._over(lambda: self._coordinator.get_many(keys))

    async def put_many(self, values: Any) -> Any:
        return await self._over(lambda: self._coordinator.put_many(values))

    async def _over(self, call: Callable[[], Awaitable[T]]) -> T:
        self.calls += 1
        await self._clock.sleep(self._delay_s())
        self._check()
        answer = await call()
        await self._clock.sleep(self._delay_s())
        self._check()
        return answer

    def _check(self) -> None:
        if self.broken:
            raise LinkError("the way is blocked.")


@asynccontextmanager
async def gates(
    coordinator: Coordinator,
    clock: ManualClock,
    n: int,
    delay_s: Callable[[], float] = lambda: 0.001,
) -> AsyncIterator[tuple[list[LeasedGate], list[Delayed]]]:
    """So many workers' gates and their ways; the clock must be moved by somebody."""
    links = [Delayed(coordinator, clock, delay_s) for _ in range(n)]
    opened = [
        LeasedGate(link, worker=f"w{i}", incarnation=1, clock=clock) for i, link in enumerate(links)
    ]
    async with AsyncExitStack() as stack:
        for gate in opened:
            await stack.enter_async_context(gate)
        yield opened, links
