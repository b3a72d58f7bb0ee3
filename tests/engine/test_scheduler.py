# SPDX-License-Identifier: Apache-2.0
"""The scheduler over a simulated backend: what is sent, what is kept, what is left behind."""

import asyncio

import pytest
from simulated import Simulated, request, requests

from pizza._engine.scheduler import Scheduler
from pizza.abc import ResponseCache
from pizza.caches import CacheWarning
from pizza.caches.memory import MemoryCache
from pizza.completion import Completion, Reply, Usage
from pizza.errors import (
    AuthError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    BadRequestError,
    BudgetExceededError,
    CacheError,
    ConfigError,
    MalformedResponseError,
    QuotaExhaustedError,
    RetriesExhaustedError,
)
from pizza.limits import Budget, Limits, Price, RetryPolicy


def failing(*errors):
    """A script: these errors first (one per attempt), then answers."""
    left = list(errors)
    return lambda request, attempt: left.pop(0) if left else None


class SlowCache(MemoryCache):
    """Takes a while to store."""

    def __init__(self, clock, put_s=5.0):
        super().__init__()
        self.clock, self.put_s = clock, put_s

    async def put(self, key, value):
        await self.clock.sleep(self.put_s)
        await super().put(key, value)


# --- paid for once -----------------------------------------------------------------------------


async def test_an_answer_says_how_it_was_come_by(clock):
    backend = Simulated(clock, cost=Price(prompt=1e6, completion=2e6))
    async with Scheduler(backend, cache=MemoryCache(), clock=clock) as scheduler:
        fresh = await clock.run(scheduler.submit(request("12345678")))
        again = await clock.run(scheduler.submit(request("12345678")))
    assert (fresh.cached, fresh.attempts, fresh.cost) == (False, 1, 2 + 2 * 16)
    assert (again.cached, again.attempts, again.cost) == (True, 0, 0.0)
    assert fresh.completion == again.completion
    statistics = scheduler.statistics
    assert (statistics.calls, statistics.cache_hits, statistics.cost) == (1, 1, 34.0)
    assert statistics.usage == Usage(prompt_tokens=2, completion_tokens=16)


async def test_results_come_in_order_and_failures_are_values(clock, backend):
    backend.script = lambda request, _: (
        BadRequestError("no") if request.prompt.text.startswith("000003") else None
    )
    async with Scheduler(backend, clock=clock) as scheduler:
        results = await clock.run(scheduler.run(list(requests(20))))
    assert isinstance(results[3], BadRequestError)
    texts = [r.completion.text.split()[2] for i, r in enumerate(results) if i != 3]
    assert texts == [f"{i:06d}" for i in range(20) if i != 3]
    assert scheduler.statistics.failures == 1


async def test_identical_requests_under_way_are_sent_once(clock, backend):
    async with Scheduler(backend, clock=clock) as scheduler:
        results = await clock.run(scheduler.run([request("same")] * 10))
    assert len(backend.arrivals) == 1
    assert scheduler.statistics.shared == 9
    assert sum(not result.cached for result in results) == 1


async def test_an_error_of_the_leader_is_everybodys(clock, backend):
    backend.script = failing(BadRequestError("no"))
    async with Scheduler(backend, clock=clock) as scheduler:
        results = await clock.run(scheduler.run([request("same")] * 3))
    assert [type(result) for result in results] == [BadRequestError] * 3
    # Each caller has an exception of its own: a traceback belongs to one task.
    assert len({id(result) for result in results}) == 3
    assert len(backend.arrivals) == 1


async def test_when_the_leader_is_cancelled_a_follower_takes_over(clock, backend):
    async with Scheduler(backend, clock=clock) as scheduler:
        leader = asyncio.create_task(scheduler.submit(request("same")))
        await clock.settle()
        follower = asyncio.create_task(scheduler.submit(request("same")))
        await clock.advance(0.1)
        leader.cancel()
        answer = await clock.run(asyncio.wait_for(follower, None))
    assert answer.completion.text == "answer to same"
    assert backend.cancelled == 1
    assert leader.cancelled()


async def test_a_cancelled_follower_touches_nobody(clock, backend):
    async with Scheduler(backend, clock=clock) as scheduler:
        leader = asyncio.create_task(scheduler.submit(request("same")))
        await clock.settle()
        follower = asyncio.create_task(scheduler.submit(request("same")))
        await clock.settle()
        follower.cancel()
        await clock.advance(1)
        assert (await leader).attempts == 1
    assert backend.cancelled == 0


async def test_a_paid_answer_is_stored_even_if_its_caller_has_gone(clock, backend):
    cache = SlowCache(clock)
    async with Scheduler(backend, cache=cache, clock=clock) as scheduler:
        caller = asyncio.create_task(scheduler.submit(request("paid")))
        await clock.advance(1.0)  # answered, and being stored
        caller.cancel()
        await clock.settle()
        assert caller.cancelled()
        # Whoever asks the same meanwhile waits for it instead of paying again.
        other = asyncio.create_task(scheduler.submit(request("paid")))
        await clock.advance(10)
        assert (await other).cached
    assert len(backend.arrivals) == 1
    assert len(cache) == 1


async def test_closing_waits_for_what_is_being_stored(clock, backend):
    cache = SlowCache(clock)

    async def body():
        async with Scheduler(backend, cache=cache, clock=clock) as scheduler:
            caller = asyncio.create_task(scheduler.submit(request("paid")))
            await clock.sleep(1.0)
            caller.cancel()

    await clock.run(body())
    assert len(cache) == 1


async def test_a_cache_that_never_ends_does_not_keep_the_scheduler_open(clock, backend):
    async def body():
        cache = SlowCache(clock, put_s=1e9)
        async with Scheduler(backend, cache=cache, clock=clock) as scheduler:
            caller = asyncio.create_task(scheduler.submit(request("paid")))
            await clock.sleep(1.0)
            caller.cancel()

    await clock.run(body())
    assert clock.now() <= 12


async def test_a_damaged_entry_is_asked_again_with_a_warning(clock, backend):
    class Damaged(MemoryCache):
        async def get(self, key):
            value = await super().get(key)
            return value and value[:-1]

    async with Scheduler(backend, cache=Damaged(), clock=clock) as scheduler:
        await clock.run(scheduler.submit(request()))
        with pytest.warns(CacheWarning, match="damaged"):
            answer = await clock.run(scheduler.submit(request()))
    assert not answer.cached
    assert len(backend.arrivals) == 2


async def test_an_answer_that_cannot_be_stored_is_still_delivered(clock, backend, caplog):
    class Full(ResponseCache):
        async def get(self, key):
            return None

        async def put(self, key, value):
            raise CacheError("disk full")

    async with Scheduler(backend, cache=Full(), clock=clock) as scheduler:
        answer = await clock.run(scheduler.submit(request()))
    assert answer.completion.text == "answer to hello"
    assert "disk full" in caplog.text


@pytest.mark.parametrize("error", [CacheError("cannot be read"), KeyError("cannot be read")])
async def test_a_cache_that_cannot_be_read_is_an_error_before_money_is_spent(clock, backend, error):
    class Broken(MemoryCache):
        async def get(self, key):
            raise error

    async with Scheduler(backend, cache=Broken(), clock=clock) as scheduler:
        with pytest.raises(CacheError, match="cannot be read"):
            await clock.run(scheduler.submit(request()))
    assert backend.arrivals == []


# --- failures ----------------------------------------------------------------------------------


async def test_a_wrong_key_costs_one_request(clock, backend):
    backend.script = lambda *_: AuthError("wrong key", backend="b")
    async with Scheduler(backend, clock=clock) as scheduler:
        results = await clock.run(scheduler.run(list(requests(500))))
        assert {type(result) for result in results} == {AuthError}
        assert len(backend.arrivals) == 1
        # A key may be replaced: after a minute one request tries again.
        await clock.advance(61)
        backend.script = None
        assert (await clock.run(scheduler.submit(request()))).attempts == 1


async def test_no_quota_is_not_retried(clock, backend):
    backend.script = lambda *_: QuotaExhaustedError("no credit")
    async with Scheduler(backend, clock=clock) as scheduler:
        with pytest.raises(QuotaExhaustedError):
            await clock.run(scheduler.submit(request()))
    assert len(backend.arrivals) == 1


@pytest.mark.parametrize(
    "error",
    [
        BackendUnavailableError("500"),
        MalformedResponseError("cut"),
        ConnectionResetError("raw"),
        BackendTimeoutError("late"),
    ],
)
async def test_what_may_pass_is_tried_again(clock, backend, error):
    backend.script = failing(error, error)
    async with Scheduler(backend, clock=clock) as scheduler:
        answer = await clock.run(scheduler.submit(request()))
    assert answer.attempts == 3
    assert scheduler.statistics.retries == 2


async def test_what_will_not_pass_is_not_tried_again(clock, backend):
    backend.script = lambda *_: BadRequestError("no")
    async with Scheduler(backend, clock=clock) as scheduler:
        with pytest.raises(BadRequestError):
            await clock.run(scheduler.submit(request()))
    assert len(backend.arrivals) == 1


async def test_a_backend_that_raises_anything_kills_nothing_else(clock, backend):
    # Mistake: catching only the vendor's errors; anything else ends the whole task group.
    backend.script = lambda request, _: (
        ZeroDivisionError("oops") if request.prompt.text.startswith("000001") else None
    )
    async with Scheduler(backend, clock=clock) as scheduler:
        results = await clock.run(scheduler.run(list(requests(5))))
    assert type(results[1]) is BackendError
    assert isinstance(results[1].__cause__, ZeroDivisionError)
    assert "ZeroDivisionError: oops" in str(results[1])
    assert sum(isinstance(result, Exception) for result in results) == 1


async def test_attempts_end_and_say_why(clock, backend):
    backend.script = lambda *_: BackendUnavailableError("503 from the server")
    retry = RetryPolicy(attempts=3)
    async with Scheduler(backend, retry=retry, clock=clock) as scheduler:
        with pytest.raises(RetriesExhaustedError, match=r"failed 3 times.*503") as caught:
            await clock.run(scheduler.submit(request()))
    assert caught.value.attempts == 3
    assert isinstance(caught.value.__cause__, BackendUnavailableError)


async def test_no_attempt_starts_after_the_deadline(clock, backend):
    backend.script = lambda *_: BackendUnavailableError("503")
    retry = RetryPolicy(attempts=1000, deadline_s=20.0)
    async with Scheduler(backend, retry=retry, clock=clock) as scheduler:
        with pytest.raises(RetriesExhaustedError):
            await clock.run(scheduler.submit(request()))
    assert backend.arrivals[-1][0] - backend.arrivals[0][0] <= 20.0


async def test_refusals_use_up_no_attempts_but_the_deadline_ends_them(clock):
    from rules import Bucket, Rule

    backend = Simulated(clock, Rule(Bucket(1e-6, 1)), retry_after=False, headers=False)
    backend.rule.requests.level = 0.0
    retry = RetryPolicy(attempts=2, deadline_s=100.0)
    async with Scheduler(backend, retry=retry, clock=clock) as scheduler:
        with pytest.raises(RetriesExhaustedError, match="rate limit"):
            await clock.run(scheduler.submit(request()))
    assert 3 <= backend.refused <= 20
    assert clock.now() <= 200


async def test_an_attempt_that_hangs_is_ended(clock):
    backend = Simulated(clock, latency_s=1e6)
    retry = RetryPolicy(attempts=2, attempt_timeout_s=30.0)
    async with Scheduler(backend, retry=retry, clock=clock) as scheduler:
        with pytest.raises(RetriesExhaustedError, match="no answer within 30 s"):
            await clock.run(scheduler.submit(request()))
    assert backend.cancelled == 2


async def test_a_back_off_leaves_its_slot_to_others(clock, backend):
    backend.script = failing(*[BackendUnavailableError("503")] * 5)
    limits, retry = Limits(max_concurrency=1), RetryPolicy(wait_initial_s=100, wait_max_s=100)
    async with Scheduler(backend, limits=limits, retry=retry, clock=clock) as scheduler:
        results = await clock.run(scheduler.run(list(requests(40))))
    assert backend.most_in_flight == 1
    assert all(not isinstance(result, Exception) for result in results)
    # The first one failed, and all the others did not wait for it.
    done = [text[:6] for text in backend.asked]
    assert done.index("000030") < len(done) - 3


async def test_retries_count_against_the_limits(clock, backend):
    backend.script = lambda *_: BackendUnavailableError("503")
    limits = Limits(requests_per_minute=6, burst_s=1)
    retry = RetryPolicy(attempts=4, wait_initial_s=0.001)
    async with Scheduler(backend, limits=limits, retry=retry, clock=clock) as scheduler:
        with pytest.raises(RetriesExhaustedError):
            await clock.run(scheduler.submit(request()))
    gaps = [b[0] - a[0] for a, b in zip(backend.arrivals, backend.arrivals[1:], strict=False)]
    assert min(gaps) >= 9.99


# --- budget ------------------------------------------------------------------------------------


async def test_a_cap_on_calls_is_exact(clock, backend):
    async with Scheduler(backend, budget=Budget(max_calls=7), clock=clock) as scheduler:
        results = await clock.run(scheduler.run(list(requests(30))))
    assert len(backend.arrivals) == 7
    assert sum(isinstance(result, BudgetExceededError) for result in results) == 23


async def test_a_cap_on_tokens_is_never_passed_and_is_used_up(clock):
    class Terse(Simulated):
        async def answer(self, request):
            await super().answer(request)
            usage = Usage(prompt_tokens=10, completion_tokens=2)
            return Reply(completion=Completion(text="x", usage=usage))

    backend = Terse(clock)
    async with Scheduler(backend, budget=Budget(max_tokens=200), clock=clock) as scheduler:
        await clock.run(scheduler.run(list(requests(100))))
    # 10 + 16 are reserved, 12 are used: reserving alone would have stopped after seven.
    assert scheduler.statistics.usage.total_tokens <= 200
    assert scheduler.statistics.calls >= 14


async def test_answers_from_the_cache_cost_nothing(clock, backend):
    cache = MemoryCache()
    async with Scheduler(
        backend, cache=cache, budget=Budget(max_calls=1), clock=clock
    ) as scheduler:
        for _ in range(3):
            await clock.run(scheduler.submit(request()))
        with pytest.raises(BudgetExceededError):
            await clock.run(scheduler.submit(request("other")))


def test_a_cap_on_money_needs_a_price(clock, backend):
    with pytest.raises(ConfigError, match="price"):
        Scheduler(backend, budget=Budget(max_cost=1.0), clock=clock)
