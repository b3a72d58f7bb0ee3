# SPDX-License-Identifier: Apache-2.0
"""Batches that are worth a wait, and several of them at once."""

import asyncio

import pytest
from simulated import Simulated, request, requests

from pizza._engine.scheduler import Scheduler
from pizza.completion import Completion, Reply
from pizza.testing.clock import ManualClock


class Patient(Simulated):
    """Answers eight at once, in an hour; notes when which batch began."""

    def __post_init__(self):
        super().__post_init__()
        self.batch_size = 8
        self.batch_wait_s = 10.0
        self.batches_at_once = 2
        self.times_out = False
        self.batches = []

    async def answer_batch(self, requests):
        self.batches.append((self.clock.now(), [one.prompt.text for one in requests]))
        await self.clock.sleep(3600.0)
        for position, one in enumerate(requests):
            yield position, Reply(completion=Completion(text=one.prompt.text))


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def backend(clock):
    return Patient(clock)


async def answered_once(scheduler, clock):
    """The first request of a session goes alone: that is over."""
    await clock.run(scheduler.submit(request("first")))


async def test_a_batch_waits_until_nobody_has_come_for_a_while(backend, clock):
    async with Scheduler(backend, clock=clock) as scheduler:
        await answered_once(scheduler, clock)
        start = clock.now()
        tasks = []
        for text in "abc":
            tasks.append(asyncio.create_task(scheduler.submit(request(text))))
            await clock.advance(8.0)  # each comes while the batch still waits
        assert len(backend.batches) == 1
        await clock.advance(3700.0)
        assert [task.result().completion.text for task in tasks] == ["a", "b", "c"]
    begun, texts = backend.batches[1]
    assert texts == ["a", "b", "c"]
    # The pause in which nobody came began with the first look after the last arrival.
    assert start + 16 + 10 <= begun <= start + 16 + 20


async def test_a_full_batch_does_not_wait(backend, clock):
    async with Scheduler(backend, clock=clock) as scheduler:
        await answered_once(scheduler, clock)
        start = clock.now()
        await clock.run(scheduler.run(list(requests(16))))
        # Two at once: the second does not wait for the first.
        assert [(at - start, len(texts)) for at, texts in backend.batches[1:]] == [(0, 8), (0, 8)]
        assert clock.now() - start == 3600


async def test_there_are_never_more_at_once_than_allowed(backend, clock):
    async with Scheduler(backend, clock=clock) as scheduler:
        await answered_once(scheduler, clock)
        start = clock.now()
        await clock.run(scheduler.run(list(requests(40))))
    begun = [at - start for at, _ in backend.batches[1:]]
    assert begun == [0, 0, 3600, 3600, 7200]


async def test_nobody_waits_for_callers_that_are_gone(backend, clock):
    async with Scheduler(backend, clock=clock) as scheduler:
        await answered_once(scheduler, clock)
        start = clock.now()
        task = asyncio.create_task(scheduler.submit(request("a")))
        await clock.advance(1.0)
        task.cancel()
        await clock.settle()
        assert task.cancelled()
    # Closing needed no time, and nothing was sent.
    assert clock.now() - start == 1.0
    assert len(backend.batches) == 1
