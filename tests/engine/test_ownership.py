# SPDX-License-Identifier: Apache-2.0
"""Who owns a request: streams, cancellation, closing. Nothing is left behind."""

import asyncio
import warnings

import pytest
from simulated import Simulated, request, requests

from pizza._engine.scheduler import Scheduler
from pizza.caches.memory import MemoryCache
from pizza.completion import Completion, Reply
from pizza.errors import SessionClosedError
from pizza.limits import Limits


async def test_outcomes_come_as_they_are_ready(clock, backend):
    async def slow_first(request):
        await clock.sleep(10 if request.prompt.text.startswith("000000") else 0.1)
        return Reply(completion=Completion(text=request.prompt.text))

    backend.answer = slow_first
    async with Scheduler(backend, clock=clock) as scheduler:

        async def body():
            async with scheduler.stream(requests(10)) as outcomes:
                return [outcome.index async for outcome in outcomes]

        order = await clock.run(body())
    assert sorted(order) == list(range(10))
    assert order[-1] == 0


async def test_any_kind_of_source_will_do(clock, backend):
    async def source():
        for one in requests(7):
            await clock.sleep(0.1)
            yield one

    async with Scheduler(backend, clock=clock) as scheduler:

        async def body():
            async with scheduler.stream(source()) as outcomes:
                return [outcome.item.prompt.text async for outcome in outcomes]

        assert len(await clock.run(body())) == 7


async def test_a_source_that_fails_is_reported(clock, backend):
    def source():
        yield request("1")
        raise KeyError("source")

    async with Scheduler(backend, clock=clock) as scheduler:

        async def body():
            async with scheduler.stream(source()) as outcomes:
                async for _ in outcomes:
                    pass

        with pytest.raises(KeyError):
            await clock.run(body())


async def test_the_source_is_read_no_further_than_needed(clock, backend):
    taken = 0

    def source():
        nonlocal taken
        for one in requests(10**9):
            taken += 1
            yield one

    limits = Limits(max_concurrency=5)
    async with Scheduler(backend, limits=limits, clock=clock) as scheduler:

        async def body():
            async with scheduler.stream(source()) as outcomes:
                async for outcome in outcomes:
                    if outcome.index > 50:
                        await clock.sleep(1000)
                        return

        await clock.run(body())
    assert taken <= 100
    assert backend.most_in_flight == 5


async def test_leaving_early_cancels_exactly_its_own_requests(clock, backend):
    async with Scheduler(backend, clock=clock) as scheduler:
        before = asyncio.all_tasks()
        other = asyncio.create_task(scheduler.submit(request("other")))
        await clock.advance(0.31)  # answered: from here on requests go side by side
        other = asyncio.create_task(scheduler.submit(request("another")))

        async def body():
            async with scheduler.stream(requests(1000)) as outcomes:
                async for _ in outcomes:
                    break

        stream = asyncio.create_task(body())
        await clock.advance(0.31)
        await stream
        assert backend.cancelled > 0
        await clock.advance(0.5)
        assert (await other).attempts == 1
        await clock.settle()
        assert asyncio.all_tasks() == before
        assert scheduler.statistics.in_flight == scheduler.statistics.queued == 0


async def test_an_error_in_the_callers_block_comes_out_as_it_is(clock, backend):
    async with Scheduler(backend, clock=clock) as scheduler:

        async def body():
            async with scheduler.stream(requests(100)) as outcomes:
                async for _ in outcomes:
                    raise LookupError("mine")

        with pytest.raises(LookupError):
            await clock.run(body())
    assert scheduler.statistics.in_flight == 0


async def test_a_cancelled_caller_leaves_no_task_and_touches_no_other(clock, backend):
    async with Scheduler(backend, clock=clock) as scheduler:
        before = asyncio.all_tasks()
        callers = [asyncio.create_task(scheduler.submit(request(str(i)))) for i in range(20)]
        await clock.advance(0.4)  # the probe is answered, the others are under way
        for caller in callers[1::2]:
            caller.cancel()
        await clock.advance(5)
        assert [caller.cancelled() for caller in callers] == [i % 2 == 1 for i in range(20)]
        assert asyncio.all_tasks() == before
        assert scheduler.statistics.in_flight == 0
    assert clock.next_timer() == float("inf")


async def test_nothing_survives_a_closed_scheduler(clock):
    backend = Simulated(clock, latency_s=1000)
    limits = Limits(max_concurrency=2)
    before = asyncio.all_tasks()
    async with Scheduler(backend, limits=limits, clock=clock) as scheduler:
        callers = [asyncio.create_task(scheduler.submit(request(str(i)))) for i in range(6)]
        await clock.advance(6)
    assert [type(caller.exception()) for caller in callers] == [SessionClosedError] * 6
    assert asyncio.all_tasks() == before
    assert backend.in_flight == 0
    with pytest.raises(SessionClosedError):
        await scheduler.submit(request())


async def test_a_scheduler_that_is_not_open_says_so(backend):
    with pytest.raises(SessionClosedError, match="async with"):
        await Scheduler(backend).submit(request())


async def test_nothing_is_warned_about_on_the_way(clock, backend):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with Scheduler(backend, cache=MemoryCache(), clock=clock) as scheduler:
            await clock.run(scheduler.run(list(requests(50))))
