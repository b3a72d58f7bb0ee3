# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest
from simulated import Simulated, request, requests

from pizza._engine.scheduler import Scheduler
from pizza.caches.memory import MemoryCache
from pizza.completion import Completion, Reply
from pizza.errors import BackendError, BackendUnavailableError, BadRequestError
from pizza.limits import Limits, RetryPolicy
from pizza.testing.clock import ManualClock


class Batched(Simulated):
    """Answers eight at once, in a second; notes the batches."""

    def __post_init__(self):
        super().__post_init__()
        self.batch_size = 8
        self.batches = []
        self.fail = None

    async def answer(self, request):
        raise AssertionError("a batched backend is asked in batches")

    async def answer_batch(self, requests):
        self.batches.append([one.prompt.text for one in requests])
        await self.clock.sleep(1.0)
        if self.fail is not None:
            failure, self.fail = self.fail, None
            raise failure
        for position, one in enumerate(requests):
            if "bad" in one.prompt.text:
                yield position, BadRequestError("bad")
            else:
                yield position, Reply(completion=Completion(text=one.prompt.text))


@pytest.fixture
def clock():
    return ManualClock()


async def run(backend, clock, work, **options):
    async with Scheduler(backend, clock=clock, **options) as scheduler:
        return await clock.run(scheduler.run(work))


async def test_batches_are_full_and_in_order(clock):
    backend, work = Batched(clock), list(requests(33))
    results = await run(backend, clock, work)
    assert [r.completion.text for r in results] == [one.prompt.text for one in work]
    # The first request goes alone, until something was answered.
    assert [len(batch) for batch in backend.batches] == [1, 8, 8, 8, 8]
    assert [text for batch in backend.batches for text in batch] == [
        one.prompt.text for one in work
    ]


class SlowCache(MemoryCache):
    """Takes as many turns of the loop for a lookup as the key says."""

    async def get(self, key):
        for _ in range(int(key, 16) % 20):
            await asyncio.sleep(0)
        return await super().get(key)


async def test_a_round_is_one_batch_however_long_its_requests_are_looked_up(clock):
    backend = Batched(clock)
    async with Scheduler(backend, clock=clock, cache=SlowCache()) as scheduler:
        await clock.run(scheduler.submit(request("probe")))

        async def ask():
            # A generator: nobody knows beforehand how many there will be.
            async with scheduler.stream(r for r in requests(20)) as outcomes:
                return [outcome async for outcome in outcomes]

        assert len(await clock.run(ask())) == 20
    assert [len(batch) for batch in backend.batches] == [1, 8, 8, 4]


async def test_more_requests_than_workers_do_not_wait_for_one_another(clock):
    backend = Batched(clock)
    limits = Limits(max_concurrency=2)
    async with Scheduler(backend, clock=clock, limits=limits) as scheduler:

        async def ask():
            async with scheduler.stream(r for r in requests(100)) as outcomes:
                return [outcome async for outcome in outcomes]

        assert len(await clock.run(ask())) == 100


async def test_answers_that_came_before_a_failure_are_kept(clock):
    backend = Batched(clock)

    async def half(requests):
        yield 0, Reply(completion=Completion(text="first"))
        raise BadRequestError("broken")

    async with Scheduler(backend, clock=clock) as scheduler:
        await clock.run(scheduler.submit(request("probe")))
        backend.answer_batch = half
        first, second = await clock.run(scheduler.run(list(requests(2))))
    assert first.completion.text == "first"
    assert isinstance(second, BadRequestError)


async def test_a_model_in_this_process_is_not_timed_out(clock):
    backend = Batched(clock)
    backend.times_out = False
    retry = RetryPolicy(attempts=1, attempt_timeout_s=0.5)
    (result,) = await run(backend, clock, [request()], retry=retry)
    assert result.completion.text


async def test_one_batch_is_computed_at_a_time(clock):
    backend = Batched(clock)
    await run(backend, clock, list(requests(33)))
    assert clock.now() == 5.0


async def test_failures_are_those_of_their_request(clock):
    backend = Batched(clock)
    work = [request(text) for text in ("a", "bad", "c")]
    results = await run(backend, clock, work)
    assert [isinstance(result, BadRequestError) for result in results] == [False, True, False]


async def test_a_batch_that_fails_as_a_whole_is_tried_again(clock):
    backend = Batched(clock)
    backend.fail = BackendUnavailableError("out of memory")
    results = await run(backend, clock, list(requests(4)))
    assert sum(result.attempts == 2 for result in results) >= 1
    assert all(result.attempts <= 2 for result in results)


async def test_a_wrong_number_of_answers_is_the_plugins_fault(clock):
    backend = Batched(clock)

    async def short(requests):
        for _ in ():
            yield _

    backend.answer_batch = short
    (result,) = await run(backend, clock, [request()])
    assert "0 answers for 1 requests" in str(result)


async def test_anything_a_batch_raises_is_contained(clock):
    backend = Batched(clock)
    backend.fail = ZeroDivisionError("oops")
    (result,) = await run(backend, clock, [request()])
    assert type(result) is BackendError
    assert isinstance(result.__cause__, ZeroDivisionError)


async def test_who_is_gone_before_the_batch_starts_is_not_computed_for(clock):
    backend = Batched(clock)
    async with Scheduler(backend, clock=clock) as scheduler:
        await clock.run(scheduler.submit(request("probe")))
        first = asyncio.create_task(scheduler.submit(request("first")))
        await clock.settle()
        gone = asyncio.create_task(scheduler.submit(request("gone")))
        stays = asyncio.create_task(scheduler.submit(request("stays")))
        await clock.settle()
        gone.cancel()
        await clock.advance(5)
        assert (await first).completion.text == "first"
        assert (await stays).completion.text == "stays"
    assert backend.batches == [["probe"], ["first"], ["stays"]]


async def test_less_concurrency_than_a_batch_makes_smaller_batches(clock):
    backend = Batched(clock)
    await run(backend, clock, list(requests(9)), limits=Limits(max_concurrency=4))
    assert [len(batch) for batch in backend.batches] == [1, 4, 4]


async def test_time_counts_from_when_a_batch_starts(clock):
    backend = Batched(clock)
    retry = RetryPolicy(attempts=1, attempt_timeout_s=1.5)
    # The last of five batches waits four seconds for its turn.
    results = await run(backend, clock, list(requests(33)), retry=retry)
    assert not any(isinstance(result, Exception) for result in results)


async def test_a_batch_that_hangs_is_ended(clock):
    backend = Batched(clock)
    retry = RetryPolicy(attempts=1, attempt_timeout_s=0.5)
    (result,) = await run(backend, clock, [request()], retry=retry)
    assert "did not answer a batch of 1 within 0.5 s" in str(result)


class Watched(Batched):
    """Notes the batches that were given up."""

    def __post_init__(self):
        super().__post_init__()
        self.given_up = 0

    async def answer_batch(self, requests):
        try:
            async for item in super().answer_batch(requests):
                yield item
        except asyncio.CancelledError:
            self.given_up += 1
            raise


async def test_a_batch_is_given_up_when_nobody_waits_for_it_any_more(clock):
    backend = Watched(clock)
    first, *rest = requests(4)
    async with Scheduler(backend, clock=clock) as scheduler:
        await clock.run(scheduler.submit(first))
        tasks = [asyncio.create_task(scheduler.submit(one)) for one in rest]
        for _ in range(20):
            await asyncio.sleep(0)
        assert [len(batch) for batch in backend.batches] == [1, 3]
        for task in tasks[:2]:
            task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        # One of them is still wanted.
        assert backend.given_up == 0
        tasks[2].cancel()
        for task in tasks:
            with pytest.raises(asyncio.CancelledError):
                await task
        for _ in range(20):
            await asyncio.sleep(0)
        assert backend.given_up == 1
        # And the next one is answered.
        again = await clock.run(scheduler.submit(rest[0]))
        assert again.completion.text == rest[0].prompt.text
