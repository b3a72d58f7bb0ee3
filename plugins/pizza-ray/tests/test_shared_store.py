# SPDX-License-Identifier: Apache-2.0
"""Answers go to the coordinator's store: in few calls, and before anybody uses them."""

import asyncio

import pytest
from leases import Delayed
from pizza_ray.coordinator import Coordinator
from pizza_ray.shared_store import SharedStore
from pizza_ray.wire import LinkError
from simulated import Simulated, requests

from pizza._engine.scheduler import Scheduler
from pizza.abc import ResponseCache
from pizza.bulk.store import Store
from pizza.caches.memory import MemoryCache
from pizza.errors import CacheError
from pizza.limits import Limits
from pizza.testing.clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


def opened(clock, kept, delay_s=0.001):
    coordinator = Coordinator(Limits(), store=kept, clock=clock)
    link = Delayed(coordinator, clock, lambda: delay_s)
    return SharedStore(link, clock), link


async def test_what_was_put_is_had_by_other_workers(clock):
    coordinator = Coordinator(Limits(), store=MemoryCache(), clock=clock)
    first, second = SharedStore(coordinator, clock), SharedStore(coordinator, clock)

    async def run():
        await first.put("a", b"1")
        await first.put_many({"b": b"2", "c": b"3"})
        assert await second.get("a") == b"1"
        assert await second.get("z") is None
        assert await second.get_many(["c", "z", "b"]) == {"b": b"2", "c": b"3"}

    await clock.run(run())


async def test_what_waits_at_one_moment_goes_in_one_call(clock):
    store, link = opened(clock, MemoryCache())

    async def run():
        async with asyncio.TaskGroup() as group:
            for i in range(50):
                group.create_task(store.put(f"{i}", b"x"))
        async with asyncio.TaskGroup() as group:
            found = [group.create_task(store.get(f"{i}")) for i in range(50)]
        assert [task.result() for task in found] == [b"x"] * 50

    await clock.run(run())
    assert link.calls == 2


async def test_a_steady_stream_makes_at_most_fifty_calls_a_second(clock):
    store, link = opened(clock, MemoryCache())

    async def run():
        async with asyncio.TaskGroup() as group:
            for i in range(1000):
                group.create_task(store.put(f"{i}", b"x"))
                await clock.sleep(0.001)

    await clock.run(run())
    assert link.calls <= 51


async def test_put_returns_when_it_is_stored_and_not_before(clock):
    class Slow(MemoryCache):
        async def put_many(self, values):
            await clock.sleep(5)
            await super().put_many(values)

    kept = Slow()
    store, _ = opened(clock, kept)
    putting = asyncio.create_task(store.put("a", b"1"))
    await clock.advance(4.9)
    assert not putting.done()
    await clock.advance(0.2)
    assert putting.done()
    assert await kept.get("a") == b"1"


async def test_an_answer_is_stored_even_if_whoever_put_it_gives_up(clock):
    kept = MemoryCache()
    store, _ = opened(clock, kept)
    putting = asyncio.create_task(store.put("a", b"1"))
    await clock.settle()
    putting.cancel()
    await clock.run(store.aclose())
    assert await kept.get("a") == b"1"


async def test_a_store_that_fails_says_so_to_everybody_with_an_error_of_his_own(clock):
    class Full(ResponseCache):
        async def get(self, key):
            return None

        async def put(self, key, value):
            raise CacheError("the disk is full")

    store, link = opened(clock, Full())

    async def run():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(caught(store.put(str(i), b"x"))) for i in range(3)]
        return [task.result() for task in tasks]

    async def caught(putting):
        with pytest.raises(CacheError, match="the disk is full") as found:
            await putting
        return found.value

    errors = await clock.run(run())
    assert len({id(error) for error in errors}) == 3
    assert link.calls == 1


async def test_a_broken_way_is_told_and_not_waited_for(clock):
    store, link = opened(clock, MemoryCache())
    link.broken = True
    with pytest.raises(LinkError):
        await clock.run(store.get("a"))
    with pytest.raises(LinkError):
        await clock.run(store.put("a", b"1"))


async def test_two_workers_pay_once_for_what_one_of_them_has_answered(clock, tmp_path):
    coordinator = Coordinator(Limits(), store=Store(tmp_path / "responses.sqlite"), clock=clock)
    backends = [Simulated(clock), Simulated(clock)]
    for backend in backends:
        store = SharedStore(coordinator)  # the file is real, and so is its time
        async with Scheduler(backend, cache=store, clock=clock) as scheduler:
            running = asyncio.create_task(scheduler.run(list(requests(60))))
            while not running.done():
                await clock.advance(0.05)
                await asyncio.wait((running,), timeout=0.005)
            assert all(answer.completion.text for answer in running.result())
        await store.aclose()
    assert [len(backend.arrivals) for backend in backends] == [60, 0]
    await coordinator.aclose()
