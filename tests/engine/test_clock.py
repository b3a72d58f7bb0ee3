# SPDX-License-Identifier: Apache-2.0
import asyncio
import math

import pytest

from pizza._engine.clock import SystemClock
from pizza.testing.clock import ManualClock


async def test_a_sleep_of_an_hour_takes_no_time():
    clock = ManualClock(start=5.0)
    await clock.run(clock.sleep(3600))
    assert clock.now() == 3605.0
    assert clock.time() == 1_700_003_600.0


async def test_timers_fire_in_order_and_at_their_own_time():
    clock, seen = ManualClock(), []
    for seconds in (3.0, 1.0, 2.0):
        clock.call_later(seconds, lambda: seen.append(clock.now()))
    await clock.advance(2.5)
    assert seen == [1.0, 2.0]
    assert clock.now() == 2.5
    assert clock.next_timer() == 0.5


async def test_a_cancelled_timer_does_not_fire():
    clock, seen = ManualClock(), []
    clock.call_later(1.0, lambda: seen.append(1)).cancel()
    await clock.advance(10)
    assert seen == []
    assert clock.next_timer() == math.inf


async def test_running_what_can_never_end_is_reported():
    clock = ManualClock()
    with pytest.raises(TimeoutError, match="no timer"):
        await clock.run(asyncio.get_running_loop().create_future())


async def test_errors_come_out_as_they_are():
    async def fail():
        raise KeyError("x")

    with pytest.raises(KeyError):
        await ManualClock().run(fail())


async def test_a_timeout_ends_its_block():
    clock = ManualClock()

    async def slow():
        async with clock.timeout(5):
            await clock.sleep(10)

    with pytest.raises(TimeoutError, match="longer than 5 s"):
        await clock.run(slow())
    assert clock.now() == 5.0


async def test_a_timeout_that_is_not_needed_leaves_nothing():
    clock = ManualClock()
    async with clock.timeout(5) as timeout:
        pass
    assert not timeout.expired()
    assert clock.next_timer() == math.inf


async def test_a_cancellation_from_outside_is_not_turned_into_a_timeout():
    clock = ManualClock()

    async def guarded():
        async with clock.timeout(5):
            await clock.sleep(100)

    task = asyncio.create_task(guarded())
    await clock.settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_together_with_the_timeout_goes_on():
    clock = ManualClock()

    async def guarded():
        async with clock.timeout(5) as timeout:
            timeout.expire()
            asyncio.current_task().cancel()
            await clock.sleep(100)

    task = asyncio.create_task(guarded())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_systems_clock_waits_and_calls():
    clock, called = SystemClock(), asyncio.Event()
    clock.call_later(0.0, called.set)
    await called.wait()
    with pytest.raises(TimeoutError):
        async with clock.timeout(0.0):
            await asyncio.get_running_loop().create_future()
