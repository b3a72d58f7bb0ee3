# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest

from pizza._engine.flight import Flights


async def follower(flights, key="k"):
    task = asyncio.create_task(flights.follow(key))
    await asyncio.sleep(0)
    return task


async def test_the_first_leads_and_the_others_get_what_it_gets():
    flights = Flights()
    assert flights.lead("k")
    assert not flights.lead("k")
    assert flights.lead("other")
    tasks = [await follower(flights) for _ in range(3)]
    flights.land("k", "answer")
    assert [await task for task in tasks] == ["answer"] * 3
    flights.land("other", "")
    assert len(flights) == 0


async def test_a_cancelled_follower_touches_nobody():
    flights = Flights()
    flights.lead("k")
    gone, stays = await follower(flights), await follower(flights)
    gone.cancel()
    flights.land("k", "answer")
    assert await stays == "answer"


async def test_the_oldest_follower_takes_over():
    flights = Flights()
    flights.lead("k")
    first, second = await follower(flights), await follower(flights)
    flights.abandon("k")
    assert await first is None
    flights.land("k", "answer")
    assert await second == "answer"


async def test_without_followers_an_abandoned_flight_is_over():
    flights = Flights()
    flights.lead("k")
    flights.abandon("k")
    assert flights.lead("k")


async def test_a_lead_handed_to_somebody_who_is_being_cancelled_goes_on_to_the_next():
    flights = Flights()
    flights.lead("k")
    first, second = await follower(flights), await follower(flights)
    flights.abandon("k")  # hands over to the first ...
    first.cancel()  # ... which is cancelled before it runs
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second is None
    flights.abandon("k")
    assert len(flights) == 0
