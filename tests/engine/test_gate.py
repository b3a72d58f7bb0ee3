# SPDX-License-Identifier: Apache-2.0
"""One gate for several sessions, and what stays each session's own."""

import asyncio
import itertools

import pytest
from simulated import Simulated, request, requests

import pizza
from pizza._engine.scheduler import Scheduler
from pizza.errors import AuthError, BudgetExceededError, ConfigError, SessionClosedError
from pizza.gate import LocalGate
from pizza.limits import Budget, Limits, RetryPolicy, Spent
from pizza.testing.clock import ManualClock

ONE = Spent(calls=1, tokens=10)


@pytest.fixture
def clock():
    return ManualClock()


async def sent_by(backends, gate, clock, n):
    """What a scheduler per backend gets, all at the same time, for ``n`` requests each."""

    async def one(backend):
        async with Scheduler(backend, gate=gate, clock=clock) as scheduler:
            return await scheduler.run(list(requests(n)))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(backend)) for backend in backends]
    return [answer for task in tasks for answer in task.result()]


async def test_two_schedulers_share_one_rate(clock):
    gate = LocalGate(Limits(requests_per_minute=60, burst_s=1, max_concurrency=50), clock)
    backends = [Simulated(clock), Simulated(clock)]

    await clock.run(sent_by(backends, gate, clock, 30))
    sent = sorted(at for backend in backends for at, _ in backend.arrivals)
    assert len(sent) == 60
    # One a second and a bucket of one: never two within a second, and no second is lost.
    assert all(later - earlier >= 1 - 1e-6 for earlier, later in itertools.pairwise(sent))
    assert sent[-1] <= 61


async def test_a_cap_holds_over_all_schedulers(clock):
    gate = LocalGate(Limits(), clock, budget=Budget(max_calls=17))
    backends = [Simulated(clock), Simulated(clock)]
    found = await clock.run(sent_by(backends, gate, clock, 20))
    refused = [answer for answer in found if isinstance(answer, BudgetExceededError)]
    assert (len(found), len(refused)) == (40, 23)
    assert sum(len(backend.arrivals) for backend in backends) == 17 == gate.spent.calls


async def test_closing_a_scheduler_ends_its_own_waiting_and_leaves_the_gate_open(clock):
    gate = LocalGate(Limits(max_concurrency=1), clock)
    backend = Simulated(clock)
    held = await gate.enter(gate.ticket(), ONE)
    async with Scheduler(backend, gate=gate, clock=clock) as second:
        other = asyncio.create_task(second.submit(request("2")))
        async with Scheduler(backend, gate=gate, clock=clock) as first:
            mine = asyncio.create_task(first.submit(request("1")))
            await clock.settle()
            assert (first.statistics.queued, second.statistics.queued, gate.queued) == (1, 1, 2)
        with pytest.raises(SessionClosedError, match="closed while this request waited"):
            await mine
        assert (gate.queued, gate.in_flight, backend.arrivals) == (1, 1, [])
        gate.give_back(held)
        assert (await clock.run(other)).attempts == 1
    assert (gate.queued, gate.in_flight) == (0, 0)


async def test_a_rejected_key_stops_everybody_for_a_minute(clock):
    gate = LocalGate(Limits(), clock)
    bad = Simulated(clock, script=lambda request, attempt: AuthError("no such key", backend="x"))
    good = Simulated(clock)
    async with (
        Scheduler(bad, gate=gate, clock=clock) as first,
        Scheduler(good, gate=gate, clock=clock) as second,
    ):
        with pytest.raises(AuthError):
            await clock.run(first.submit(request("1")))
        with pytest.raises(AuthError, match="no such key"):
            await clock.run(second.submit(request("2")))
        assert good.arrivals == []
        await clock.advance(60)
        await clock.run(second.submit(request("3")))
    assert (len(good.arrivals), gate.in_flight) == (1, 0)


async def test_who_waited_for_the_budget_learns_that_the_key_was_rejected(clock):
    gate = LocalGate(Limits(), clock, budget=Budget(max_calls=1))
    leave = await gate.enter(gate.ticket(), ONE)
    waiting = asyncio.create_task(gate.enter(gate.ticket(), ONE))
    await clock.settle()
    gate.begin(leave)
    gate.bar(AuthError("no such key", backend="x"))
    gate.refuse(leave, retry_after_s=None, rate=None)
    with pytest.raises(AuthError):
        await waiting
    assert (gate.in_flight, gate.queued, gate.spent.calls) == (0, 0, 0)


async def test_what_was_begun_and_never_sent_costs_nothing(clock):
    noted = []

    class Tally:
        spent = Spent(calls=5)

        def write(self, spent):
            noted.append(spent)

    gate = LocalGate(Limits(), clock, budget=Budget(max_calls=6), tally=Tally())
    leave = await gate.enter(gate.ticket(), ONE)
    gate.begin(leave)
    assert noted[-1] == Spent(calls=6, tokens=10)
    gate.give_back(leave)
    assert noted[-1] == gate.spent == Spent(calls=5)
    leave = await gate.enter(gate.ticket(), ONE)
    gate.give_back(leave)
    assert gate.spent == Spent(calls=5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("limits", {"limits": Limits(requests_per_minute=5)}),
        ("limits", {"limits": Limits(tokens_per_minute=5)}),
        ("limits", {"limits": Limits(burst_s=5)}),
        ("budget", {"budget": Budget(max_calls=5)}),
        ("tally", {"tally": object()}),
    ],
)
async def test_two_masters_are_refused(clock, name, options):
    with pytest.raises(ConfigError, match=f"{name} beside gate"):
        async with pizza.Session(Simulated(clock), gate=LocalGate(Limits(), clock), **options):
            pass


async def test_a_session_asks_the_gate_that_it_was_given(clock):
    gate = LocalGate(Limits(), clock, budget=Budget(max_calls=1))
    backend = Simulated(clock)
    options = {"clock": clock, "limits": Limits(max_concurrency=3), "retry": RetryPolicy()}
    async with pizza.Session(backend, gate=gate, discover=False, **options) as session:
        await clock.run(session.submit(request("1")))
        with pytest.raises(BudgetExceededError):
            await clock.run(session.submit(request("2")))
    assert gate.spent.calls == 1


async def opened_wide(gate):
    """Answer a request, after which others need not wait for the first."""
    leave = await gate.enter(gate.ticket(), ONE)
    gate.begin(leave)
    gate.finish(leave, ONE)


async def all_that_pass(gate, clock):
    """Leave for as many as get it at this moment."""
    waiting = [asyncio.create_task(gate.enter(gate.ticket(), ONE)) for _ in range(100)]
    await clock.settle()
    leaves = [task.result() for task in waiting if task.done()]
    for task in waiting:
        task.cancel()
    await clock.settle()
    return leaves


async def test_a_lag_is_taken_off_the_burst(clock):
    limits = Limits(requests_per_minute=600, burst_s=3.0, max_concurrency=100)
    gate = LocalGate(limits, clock, lag_s=1.0)
    await opened_wide(gate)
    await clock.advance(60)
    assert len(await all_that_pass(gate, clock)) == 20


@pytest.mark.parametrize(("lag_s", "passing"), [(0.0, 29), (1.0, 20)])
async def test_what_comes_back_late_makes_room_only_where_nothing_lags(clock, lag_s, passing):
    limits = Limits(requests_per_minute=600, burst_s=3.0, max_concurrency=100)
    gate = LocalGate(limits, clock, lag_s=lag_s)
    await opened_wide(gate)
    await clock.advance(60)
    leaves = await all_that_pass(gate, clock)
    # One is kept back for requests that overtake others on their way to the server.
    assert len(leaves) == passing
    await clock.advance(1.0)
    for leave in leaves:
        gate.give_back(leave)
    # A second refilled ten; the others were taken in a window that is over.
    assert len(await all_that_pass(gate, clock)) == (10 if lag_s else 29)
