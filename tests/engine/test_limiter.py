# SPDX-License-Identifier: Apache-2.0
"""The gate: order, fairness, cancellation, and whole runs against simulated servers."""

import asyncio
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rules import best_s, make_rule
from simulated import Simulated, request, requests

from pizza._engine.limiter import Limiter
from pizza._engine.scheduler import Scheduler
from pizza.errors import SessionClosedError
from pizza.limits import Limits, RateStatus
from pizza.testing.clock import ManualClock

KINDS = ["full-minute", "bucket-10", "bucket-10-costly", "window"]


def open_gate(**limits):
    """A limiter that has been answered once, and its clock."""
    clock = ManualClock()
    limiter = Limiter(Limits(**limits), clock, seed=0)
    limiter._answered = True
    return limiter, clock


async def enter(limiter, group, log, name, tokens=1.0):
    async def wait():
        permit = await limiter.acquire(limiter.ticket(), tokens)
        log.append(name)
        return permit

    return group.create_task(wait())


async def run(kind, *, told, n=1500, concurrency=50, lie=None, **server):
    """A run against a simulated server with a limit of 600 a minute."""
    clock = ManualClock()
    rule = make_rule(kind, 600, None, None)
    backend = Simulated(clock, rule, **server)
    if lie is not None:
        backend.lie = lie
    limits = Limits(requests_per_minute=told, max_concurrency=concurrency)
    async with Scheduler(backend, limits=limits, clock=clock) as scheduler:
        results = await clock.run(scheduler.run(list(requests(n))), limit=3000)
        # Every attempt handed its permit back.
        assert scheduler.statistics.in_flight == scheduler.statistics.queued == 0
    lost = sum(isinstance(result, Exception) for result in results)
    share = best_s(kind, 600, n) / (backend.admitted[-1] - backend.arrivals[0][0])
    return share, backend.refused, lost


# --- what must be reached ----------------------------------------------------------------------


@pytest.mark.parametrize("jitter_s", [0.0, 0.03])
@pytest.mark.parametrize("told", [600, None])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_allowed_rate_is_used_and_hardly_anything_is_refused(kind, told, jitter_s):
    share, refused, lost = await run(kind, told=told, jitter_s=jitter_s)
    assert share >= (0.98 if kind == "window" else 0.99)
    assert refused <= 5
    assert lost == 0


@pytest.mark.parametrize("kind", ["bucket-10", "bucket-10-costly"])
async def test_no_headers_and_no_retry_after(kind):
    share, refused, lost = await run(
        kind, told=600, headers=False, retry_after=False, jitter_s=0.03
    )
    assert (share >= 0.99, refused <= 5, lost) == (True, True, 0)


async def test_a_rate_that_nobody_says_is_found():
    share, refused, lost = await run("bucket-10", told=None, headers=False, retry_after=False)
    assert (share >= 0.9, refused <= 100, lost) == (True, True, 0)


@pytest.mark.parametrize("told", [600, None])
async def test_a_window_is_found_even_when_its_quota_is_gone_in_a_second(told):
    share, refused, lost = await run("window", told=told, concurrency=500)
    assert (share >= 0.98, refused <= 5, lost) == (True, True, 0)


@pytest.mark.parametrize("told", [600, None])
async def test_lying_headers_cost_one_volley(told):
    # Mistake: believing a promised 30,000 over and over cost 411 refusals per 300 requests.
    def lie(status):
        return RateStatus(limit_requests=30_000, remaining_requests=29_999, reset_requests_s=0.0)

    share, refused, lost = await run("bucket-10", told=told, n=300, lie=lie)
    assert (share >= 0.85, refused <= 60, lost) == (True, True, 0)


async def test_a_server_that_counts_refusals_and_says_sixty_seconds_always():
    def lie(status):
        return replace(status, reset_requests_s=60.0)

    share, refused, lost = await run("bucket-10-costly", told=600, lie=lie, jitter_s=0.02)
    assert (share >= 0.99, refused <= 5, lost) == (True, True, 0)


@pytest.mark.parametrize("headers", [True, False])
@pytest.mark.parametrize("burst", [10_000.0, 120_000.0])
async def test_tokens_per_minute_with_prompts_of_very_different_size(burst, headers):
    clock, rng, n = ManualClock(), random.Random(1), 400
    sizes = [4 * (rng.randint(53, 400) if rng.random() < 0.8 else 3003) for _ in range(n)]
    backend = Simulated(clock, make_rule("none", None, 120_000, burst), headers=headers)
    limits = Limits(tokens_per_minute=120_000, burst_s=None if headers else burst / 2000)
    async with Scheduler(backend, limits=limits, clock=clock) as scheduler:
        work = list(requests(n, lambda i: sizes[i]))
        results = await clock.run(scheduler.run(work), limit=3000)
    assert not any(isinstance(result, Exception) for result in results)
    best = (backend.tokens - burst) / 2000
    assert best / (backend.admitted[-1] - backend.arrivals[0][0]) >= 0.99
    assert backend.refused <= 5
    # First come, first served: nobody is overtaken because of its size.
    order = [int(text.split()[0]) for text in backend.asked]
    assert order == sorted(order)


# --- one 429 slows everybody -------------------------------------------------------------------


async def test_one_refusal_pauses_everybody_and_the_request_keeps_its_place():
    limiter, clock = open_gate(requests_per_minute=6000)
    refused = limiter.ticket()
    permit = await limiter.acquire(refused, 1.0)
    limiter.refuse(permit, retry_after_s=10.0, rate=None)
    log = []
    async with asyncio.TaskGroup() as group:
        await enter(limiter, group, log, "later")
        await clock.settle()

        async def again():
            await limiter.acquire(refused, 1.0)
            log.append("refused")

        group.create_task(again())
        await clock.advance(9.99)
        assert log == []
        await clock.advance(0.2)
        assert log == ["refused", "later"]


async def test_the_jitter_of_a_pause_is_only_upwards():
    pauses = set()
    for seed in range(50):
        clock = ManualClock()
        limiter = Limiter(Limits(), clock, seed=seed)
        permit = await limiter.acquire(limiter.ticket(), 1.0)
        limiter.refuse(permit, retry_after_s=2.0, rate=None)
        pauses.add(limiter._paused_until)
    assert min(pauses) >= 2.0
    assert max(pauses) <= 2.05
    assert len(pauses) == 50


async def test_an_absurd_retry_after_is_capped():
    limiter, clock = open_gate()
    permit = await limiter.acquire(limiter.ticket(), 1.0)
    limiter.refuse(permit, retry_after_s=2059.0, rate=None)
    assert limiter._paused_until - clock.now() <= 60.1


async def test_refusals_of_one_volley_count_once():
    limiter, clock = open_gate(requests_per_minute=60_000)
    permits = [await limiter.acquire(limiter.ticket(), 1.0) for _ in range(20)]
    before = limiter.requests.server.rate
    for permit in permits:
        limiter.refuse(permit, retry_after_s=None, rate=None)
    assert limiter.requests.server.rate >= 0.85 * before
    assert limiter._paused_until - clock.now() <= 0.6


# --- order, cancellation, closing --------------------------------------------------------------


async def test_first_come_first_served():
    limiter, clock = open_gate(requests_per_minute=60)
    log = []
    async with asyncio.TaskGroup() as group:
        for name in range(5):
            await enter(limiter, group, log, name, tokens=[5000.0, 1.0][name % 2])
            await clock.settle()
        await clock.advance(10)
    assert log == [0, 1, 2, 3, 4]


async def test_a_newcomer_does_not_barge_in():
    limiter, clock = open_gate(max_concurrency=1)
    held = await limiter.acquire(limiter.ticket(), 1.0)
    log = []
    async with asyncio.TaskGroup() as group:
        first = await enter(limiter, group, log, "first")
        await clock.settle()
        limiter.finish(held)
        second = await enter(limiter, group, log, "second")
        await clock.settle()
        assert log == ["first"]
        limiter.finish(await first)
        limiter.finish(await second)
    assert log == ["first", "second"]


async def test_a_cancelled_waiter_makes_room_for_the_next():
    limiter, clock = open_gate(max_concurrency=1)
    held = await limiter.acquire(limiter.ticket(), 1.0)
    log = []
    async with asyncio.TaskGroup() as group:
        gone = await enter(limiter, group, log, "gone")
        await enter(limiter, group, log, "next")
        await clock.settle()
        assert limiter.queued == 2
        gone.cancel()
        await clock.settle()
        limiter.finish(held)
        await clock.settle()
    assert log == ["next"]


async def test_a_permit_granted_in_the_moment_of_a_cancellation_is_not_lost():
    limiter, clock = open_gate(max_concurrency=1)
    held = await limiter.acquire(limiter.ticket(), 1.0)
    log = []
    async with asyncio.TaskGroup() as group:
        gone = await enter(limiter, group, log, "gone")
        await enter(limiter, group, log, "next")
        await clock.settle()
        limiter.finish(held)  # grants to the first ...
        gone.cancel()  # ... which is cancelled before it runs
        await clock.settle()
    assert log == ["next"]
    assert limiter.in_flight == 1


async def test_nobody_polls():
    limiter, clock = open_gate(requests_per_minute=6)
    fired = 0
    call_later = clock.call_later

    def counted(seconds, callback):
        def fire():
            nonlocal fired
            fired += 1
            callback()

        return call_later(seconds, fire)

    clock.call_later = counted
    log = []
    async with asyncio.TaskGroup() as group:
        for name in range(4):
            await enter(limiter, group, log, name)
        await clock.advance(60)
    assert len(log) == 4
    assert fired == 3


async def test_closing_ends_all_waiting():
    limiter, clock = open_gate(max_concurrency=1)
    await limiter.acquire(limiter.ticket(), 1.0)
    waiter = asyncio.create_task(limiter.acquire(limiter.ticket(), 1.0))
    await clock.settle()
    limiter.close()
    with pytest.raises(SessionClosedError):
        await waiter
    with pytest.raises(SessionClosedError):
        await limiter.acquire(limiter.ticket(), 1.0)
    assert clock.next_timer() == float("inf")


# --- the first request goes alone --------------------------------------------------------------


async def test_until_something_was_answered_one_request_goes_alone():
    clock = ManualClock()
    backend = Simulated(clock, latency_s=1.0)
    async with Scheduler(backend, clock=clock) as scheduler, asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(scheduler.submit(request(str(number))))
        await clock.advance(0.99)
        assert len(backend.arrivals) == 1
        await clock.advance(0.02)
        assert len(backend.arrivals) == 20
        await clock.advance(2)


async def test_a_probe_that_hangs_does_not_hold_up_the_others_for_ever():
    clock = ManualClock()
    backend = Simulated(clock, latency_s=30.0)
    async with Scheduler(backend, clock=clock) as scheduler, asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(scheduler.submit(request(str(number))))
        await clock.advance(5.5)
        assert len(backend.arrivals) == 5
        await clock.advance(60)


# --- conservation ------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["acquire", "finish", "refuse", "back", "cancel", "wait"]),
            st.integers(0, 10),
        ),
        max_size=60,
    ),
    st.integers(1, 5),
)
def test_slots_and_permits_are_conserved(steps, slots):
    async def body():
        limiter, clock = open_gate(requests_per_minute=600, max_concurrency=slots)
        tasks, held = [], []

        def collect():
            for task in [t for t in tasks if t.done()]:
                tasks.remove(task)
                if not task.cancelled():
                    held.append(task.result())

        for step, number in steps:
            if step == "acquire":
                tasks.append(asyncio.create_task(limiter.acquire(limiter.ticket(), 1.0 + number)))
            elif step == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            elif step == "wait":
                await clock.advance(number / 10)
            elif held:
                permit = held.pop(number % len(held))
                if step == "finish":
                    limiter.finish(permit, tokens_used=float(number))
                elif step == "refuse":
                    limiter.refuse(permit, retry_after_s=0.1, rate=None)
                else:
                    limiter.give_back(permit)
            await clock.settle()
            collect()
            assert limiter.in_flight == len(held) <= slots
        # All who still wait get their turn.
        while tasks or held:
            while held:
                limiter.finish(held.pop())
            await clock.advance(100)
            collect()
        assert limiter.in_flight == limiter.queued == 0

    asyncio.run(body())


@pytest.mark.parametrize("factor", [0.5, 1.25, 2.0])
async def test_a_server_that_counts_tokens_otherwise_refuses_little(factor):
    clock, rng, n = ManualClock(), random.Random(1), 400
    sizes = [4 * rng.randint(53, 800) for _ in range(n)]
    rule = make_rule("none", None, 120_000, 10_000)
    backend = Simulated(clock, rule, jitter_s=0.02)
    ask = rule.ask
    rule.ask = lambda tokens, now: ask(factor * tokens, now)
    async with Scheduler(backend, clock=clock) as scheduler:
        work = list(requests(n, lambda i: sizes[i]))
        results = await clock.run(scheduler.run(work), limit=3000)
    assert not any(isinstance(result, Exception) for result in results)
    best = (factor * backend.tokens - 10_000) / 2000
    assert best / (backend.admitted[-1] - backend.arrivals[0][0]) >= 0.97
    assert backend.refused <= 15


@pytest.mark.parametrize("kind", ["full-minute", "window"])
async def test_even_a_network_that_reorders_everything_makes_no_storm(kind):
    # Mistake: an answer from before a refusal raised the level again, and again, 9,000 times.
    share, refused, lost = await run(kind, told=None, jitter_s=0.3, concurrency=100)
    assert (share >= 0.97, refused <= 60, lost) == (True, True, 0)
