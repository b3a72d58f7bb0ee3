# SPDX-License-Identifier: Apache-2.0
"""Workers that ask over a slow way: rates as they are sent, order, cancellation, a broken way."""

import asyncio
import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leases import ONE, Delayed, gates
from pizza_ray.coordinator import Coordinator
from pizza_ray.leasing import LeasedGate
from pizza_ray.wire import LinkError
from simulated import Simulated, request, requests

from pizza._engine.scheduler import Scheduler
from pizza.errors import (
    AuthError,
    BackendUnavailableError,
    BudgetExceededError,
    ConfigError,
    SessionClosedError,
)
from pizza.limits import Budget, Limits, RetryPolicy
from pizza.testing.clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


def worst_excess(sent, rate, burst_s):
    """By how many requests the worst of all windows passes ``rate * (t + burst)``."""
    return max(
        (j - i + 1) - rate * (sent[j] - sent[i] + burst_s)
        for i in range(len(sent))
        for j in range(i, len(sent))
    )


async def send(gate, clock, n, log, *, latency_s=0.3, at_once=30):
    """Send as a session does, and note when."""
    slots = asyncio.Semaphore(at_once)

    async def one():
        async with slots:
            leave = await gate.enter(gate.ticket(), ONE)
            gate.begin(leave)
            log.append(clock.now())
            await clock.sleep(latency_s)
            gate.finish(leave, ONE, tokens_used=10)

    async with asyncio.TaskGroup() as group:
        for _ in range(n):
            group.create_task(one())


async def all_send(opened, clock, n, log, **options):
    async with asyncio.TaskGroup() as group:
        for gate in opened:
            group.create_task(send(gate, clock, n, log, **options))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(0, 10_000),
    st.sampled_from([(600, 1.0), (600, 5.0), (3000, 0.5), (1200, None)]),
    st.sampled_from([0.001, 0.02, 0.2, 0.8, 1.5]),
)
def test_what_is_sent_keeps_to_the_rate_however_slow_the_way_is(seed, told, slow_s):
    per_minute, burst_s = told
    lease_s = min(2.0, (burst_s or 60.0) / 2)
    rng = random.Random(seed)

    def delay_s():
        # Mostly quick, sometimes slower than any lease is good for.
        return rng.uniform(0, slow_s) if rng.random() < 0.2 else rng.uniform(0, 0.01)

    async def body():
        clock = ManualClock()
        limits = Limits(requests_per_minute=per_minute, burst_s=burst_s, max_concurrency=200)
        coordinator = Coordinator(limits, clock=clock)
        sent = []

        async def run():
            async with gates(coordinator, clock, 3, delay_s) as (opened, _):
                # A worker may find that the way is too slow; the rate holds all the same.
                with contextlib.suppress(*[ExceptionGroup] * (slow_s > lease_s)):
                    await all_send(opened, clock, 50, sent)

        await clock.run(run(), limit=600)
        assert len(sent) == 150 or slow_s > lease_s
        assert worst_excess(sent, per_minute / 60, burst_s or 60.0) <= 1e-6
        standing = await coordinator.standing()
        assert (standing.in_flight, standing.queued, standing.workers) == (0, 0, 0)

    asyncio.run(body())


async def test_three_workers_use_the_rate_in_few_calls(clock):
    limits = Limits(requests_per_minute=6000, burst_s=1.0, max_concurrency=100)
    coordinator = Coordinator(limits, clock=clock)
    sent = []

    async def run():
        async with gates(coordinator, clock, 3) as (opened, _):
            await all_send(opened, clock, 1000, sent)

    await clock.run(run(), limit=10_000)
    # 3,000 requests at 100 a second and half a second's worth at once.
    assert sent[-1] <= 30.5
    standing = await coordinator.standing()
    # Twenty calls a second and worker, at 33 requests a second and worker.
    assert standing.calls <= 3 * 20 * 31 + 12
    assert standing.calls / len(sent) <= 0.62


async def test_the_faster_the_fewer_calls(clock):
    coordinator = Coordinator(Limits(max_concurrency=500), clock=clock)
    sent = []

    async def run():
        async with gates(coordinator, clock, 3) as (opened, _):
            await all_send(opened, clock, 3000, sent, at_once=200)

    await clock.run(run(), limit=10_000)
    standing = await coordinator.standing()
    assert standing.sent == len(sent) == 9000
    assert standing.calls / len(sent) <= 0.1


async def test_an_idle_worker_is_silent(clock):
    coordinator = Coordinator(Limits(), clock=clock)

    async def run():
        async with gates(coordinator, clock, 1) as ([gate], [link]):
            leave = await gate.enter(gate.ticket(), ONE)
            gate.begin(leave)
            before = link.calls
            await clock.sleep(3600)
            assert link.calls - before <= 1
            gate.finish(leave, ONE)
            await clock.sleep(3600)
            assert link.calls - before <= 2

    await clock.run(run(), limit=10_000)


async def test_a_cap_is_reached_exactly_over_all_workers(clock):
    coordinator = Coordinator(Limits(), budget=Budget(max_calls=50), clock=clock)
    backends = [Simulated(clock) for _ in range(3)]
    found = []

    async def one(gate, backend):
        async with Scheduler(backend, gate=gate, clock=clock) as scheduler:
            found.extend(await scheduler.run(list(requests(30))))

    async def run():
        async with gates(coordinator, clock, 3) as (opened, _), asyncio.TaskGroup() as group:
            for gate, backend in zip(opened, backends, strict=True):
                group.create_task(one(gate, backend))

    await clock.run(run(), limit=10_000)
    assert sum(len(backend.arrivals) for backend in backends) == 50
    assert sum(isinstance(answer, BudgetExceededError) for answer in found) == 40
    assert (await coordinator.standing()).spent.calls == 50


async def test_a_worker_lost_in_the_middle_costs_at_most_what_it_had_in_flight(clock):
    limits = Limits(requests_per_minute=600, burst_s=1.0, max_concurrency=10)
    coordinator = Coordinator(limits, budget=Budget(max_calls=100), clock=clock)
    sent, other = [], []

    async def run():
        async with gates(coordinator, clock, 2) as (opened, _):
            lost = asyncio.create_task(send(opened[0], clock, 100, other))
            alive = asyncio.create_task(send(opened[1], clock, 40, sent))
            await clock.sleep(2.0)
            await coordinator.lost("w0")
            with pytest.raises(ExceptionGroup) as caught:
                await lost
            assert caught.group_contains(LinkError, match="declared lost")
            await alive

    await clock.run(run(), limit=10_000)
    standing = await coordinator.standing()
    assert len(sent) == 40
    # Leave that was on its way counts, too.
    assert len(sent) + len(other) <= standing.spent.calls <= len(sent) + len(other) + 5
    assert (standing.in_flight, standing.queued) == (0, 0)
    assert worst_excess(sorted(sent + other), 10, 1.0) <= 1e-6


async def test_whoever_gives_up_holds_nothing(clock):
    rng = random.Random(7)
    coordinator = Coordinator(Limits(max_concurrency=5), budget=Budget(max_calls=200), clock=clock)
    done = []

    async def one(gate):
        leave = await gate.enter(gate.ticket(), ONE)
        gate.begin(leave)
        try:
            await clock.sleep(0.1)
        finally:
            gate.finish(leave, ONE)
        done.append(gate)

    async def run():
        async with gates(coordinator, clock, 2, lambda: rng.uniform(0, 0.05)) as (opened, _):
            for _ in range(40):
                tasks = [asyncio.create_task(one(rng.choice(opened))) for _ in range(4)]
                await clock.sleep(rng.uniform(0, 0.3))
                for task in tasks[1:]:
                    task.cancel()
                await asyncio.wait(tasks)
            # All five slots can be had at once: no cancelled waiter kept one.
            leaves = [await opened[0].enter(opened[0].ticket(), ONE) for _ in range(5)]
            for leave in leaves:
                opened[0].give_back(leave)
            await clock.sleep(1)
            assert [gate.queued for gate in opened] == [gate.in_flight for gate in opened] == [0, 0]

    await clock.run(run(), limit=10_000)
    standing = await coordinator.standing()
    assert 40 <= len(done) <= standing.spent.calls <= 160
    assert (standing.in_flight, standing.queued) == (0, 0)


async def test_who_gives_up_leaves_the_queue(clock):
    coordinator = Coordinator(Limits(max_concurrency=1), budget=Budget(max_calls=9), clock=clock)

    async def run():
        async with gates(coordinator, clock, 2) as (opened, _):
            leave = await opened[0].enter(opened[0].ticket(), ONE)
            waiting = [asyncio.create_task(opened[1].enter(i, ONE)) for i in range(5)]
            await clock.sleep(1)
            assert (await coordinator.standing()).queued == 5
            for task in waiting:
                task.cancel()
            await clock.sleep(1)
            assert (await coordinator.standing()).queued == 0
            opened[0].give_back(leave)
            await clock.sleep(1)
            assert (await coordinator.standing()).sent == 0

    await clock.run(run(), limit=10_000)


async def test_first_come_first_served_over_all_workers(clock):
    limits = Limits(requests_per_minute=60, burst_s=4.0, max_concurrency=50)
    coordinator = Coordinator(limits, clock=clock)
    order = []

    async def one(gate, name):
        leave = await gate.enter(gate.ticket(), ONE)
        gate.begin(leave)
        order.append(name)
        gate.finish(leave, ONE)

    async def run():
        async with gates(coordinator, clock, 3) as (opened, _), asyncio.TaskGroup() as group:
            for name in range(20):
                group.create_task(one(opened[name % 3], name))
                await clock.sleep(0.1)

    await clock.run(run(), limit=10_000)
    assert order == list(range(20))


async def test_a_request_that_was_refused_keeps_its_place(clock):
    coordinator = Coordinator(Limits(max_concurrency=1), clock=clock)
    order = []

    async def one(gate, name, refusals):
        ticket = gate.ticket()
        while True:
            leave = await gate.enter(ticket, ONE)
            gate.begin(leave)
            order.append(name)
            await clock.sleep(0.2)
            if not refusals:
                gate.finish(leave, ONE)
                return
            refusals -= 1
            gate.refuse(leave, retry_after_s=1.0, rate=None)

    async def run():
        async with gates(coordinator, clock, 2) as (opened, _), asyncio.TaskGroup() as group:
            for name in range(4):
                group.create_task(one(opened[name % 2], name, 2 if name == 0 else 0))
                await clock.sleep(0.1)

    await clock.run(run(), limit=10_000)
    assert order == [0, 0, 0, 1, 2, 3]


async def test_leave_that_comes_late_is_given_back_and_had_again(clock):
    slow = {"s": 0.6}
    coordinator = Coordinator(Limits(burst_s=1.0), clock=clock)
    backend = Simulated(clock)

    async def run():
        link = Delayed(coordinator, clock, lambda: slow["s"])
        async with (
            LeasedGate(link, worker="w", incarnation=1, clock=clock) as gate,
            Scheduler(backend, gate=gate, clock=clock) as scheduler,
        ):
            asking = asyncio.create_task(scheduler.submit(request("hello")))
            await clock.sleep(3.0)
            assert (backend.arrivals, asking.done()) == ([], False)
            slow["s"] = 0.01
            await asking

    await clock.run(run(), limit=10_000)
    assert len(backend.arrivals) == 1
    standing = await coordinator.standing()
    assert (standing.sent, standing.in_flight) == (1, 0)


async def test_a_way_that_is_always_too_slow_is_an_error_that_says_what_to_do(clock):
    coordinator = Coordinator(Limits(burst_s=0.2), clock=clock)

    async def run():
        async with gates(coordinator, clock, 1, lambda: 0.3) as ([gate], _):
            await gate.enter(gate.ticket(), ONE)

    with pytest.raises(ConfigError, match=r"0\.1 s late 10 times.*larger Limits\.burst_s"):
        await clock.run(run(), limit=10_000)
    assert (await coordinator.standing()).in_flight == 0


async def test_a_way_that_breaks_fails_whoever_waits_and_whoever_comes(clock):
    coordinator = Coordinator(Limits(max_concurrency=1), clock=clock)

    async def run():
        async with gates(coordinator, clock, 1) as ([gate], [link]):
            leave = await gate.enter(gate.ticket(), ONE)
            waiting = [asyncio.create_task(gate.enter(gate.ticket(), ONE)) for _ in range(3)]
            await clock.sleep(1)
            link.broken = True
            for task in waiting:
                with pytest.raises(LinkError, match="blocked"):
                    await task
            with pytest.raises(LinkError, match="blocked"):
                await gate.enter(gate.ticket(), ONE)
            gate.finish(leave, ONE)
            assert (gate.queued, gate.in_flight) == (0, 0)

    await clock.run(run(), limit=10_000)


async def test_a_way_that_swallows_calls_does_not_keep_a_worker_from_ending(clock):
    coordinator = Coordinator(Limits(), clock=clock)
    delays = [0.001]

    async def run():
        async with gates(coordinator, clock, 1, lambda: delays[0]) as ([gate], _):
            waiting = asyncio.create_task(gate.enter(gate.ticket(), ONE))
            delays[0] = 1e9
            await clock.sleep(1)
        with pytest.raises(SessionClosedError):
            await waiting

    await clock.run(run(), limit=10_000)
    assert clock.now() < 60


async def test_a_gate_that_is_not_open_says_so(clock):
    gate = LeasedGate(Coordinator(Limits(), clock=clock), worker="w", incarnation=1, clock=clock)
    with pytest.raises(SessionClosedError, match="not open"):
        await gate.enter(gate.ticket(), ONE)
    await gate.aclose()
    async with gate:
        pass
    with pytest.raises(SessionClosedError, match="not open"):
        await gate.enter(gate.ticket(), ONE)


async def test_signing_off_gives_everything_back(clock):
    coordinator = Coordinator(Limits(), budget=Budget(max_calls=5), clock=clock)

    async def run():
        async with gates(coordinator, clock, 1) as ([gate], _):
            gate.begin(await gate.enter(gate.ticket(), ONE))

    await clock.run(run(), limit=10_000)
    standing = await coordinator.standing()
    assert (standing.workers, standing.in_flight, standing.spent.calls) == (0, 0, 1)


async def test_a_rejected_key_at_one_worker_stops_all_workers(clock):
    coordinator = Coordinator(Limits(), clock=clock)
    bad = Simulated(clock, script=lambda request, attempt: AuthError("no such key", backend="x"))
    good = Simulated(clock)

    async def run():
        async with (
            gates(coordinator, clock, 2) as (opened, _),
            Scheduler(bad, gate=opened[0], clock=clock) as first,
            Scheduler(good, gate=opened[1], clock=clock) as second,
        ):
            with pytest.raises(AuthError):
                await first.submit(request("1"))
            await clock.sleep(0.1)
            with pytest.raises(AuthError, match="no such key"):
                await second.submit(request("2"))

    await clock.run(run(), limit=10_000)
    assert good.arrivals == []


async def test_retries_of_a_scheduler_go_through_the_lease(clock):
    coordinator = Coordinator(Limits(), clock=clock)
    left = [BackendUnavailableError("down", backend="x")] * 2
    backend = Simulated(clock, script=lambda request, attempt: left.pop() if left else None)

    async def run():
        async with (
            gates(coordinator, clock, 1) as ([gate], _),
            Scheduler(backend, gate=gate, clock=clock, retry=RetryPolicy()) as scheduler,
        ):
            return await scheduler.submit(request("1"))

    assert (await clock.run(run(), limit=10_000)).attempts == 3
    standing = await coordinator.standing()
    assert (standing.sent, standing.in_flight) == (3, 0)


async def test_the_rate_that_a_server_announces_is_learned_over_the_link(clock):
    from rules import make_rule

    coordinator = Coordinator(Limits(), clock=clock)
    rule = make_rule("bucket-10", 600, None, None)
    backends = [Simulated(clock, rule) for _ in range(3)]

    async def one(gate, backend, start):
        async with Scheduler(backend, gate=gate, clock=clock) as scheduler:
            texts = [request(f"{i:05d}") for i in range(start, start + 200)]
            return await scheduler.run(texts)

    async def run():
        async with gates(coordinator, clock, 3) as (opened, _), asyncio.TaskGroup() as group:
            return [
                group.create_task(one(gate, backend, 1000 * i))
                for i, (gate, backend) in enumerate(zip(opened, backends, strict=True))
            ]

    tasks = await clock.run(run(), limit=10_000)
    assert all(not isinstance(a, Exception) for task in tasks for a in task.result())
    # 600 requests at ten a second, of a server that tells its limits.
    assert clock.now() <= 63
    assert sum(backend.refused for backend in backends) <= 6
