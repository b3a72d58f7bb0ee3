# SPDX-License-Identifier: Apache-2.0
"""The book of who holds leave: nothing is sent over a cap, and nothing leaks."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leases import ask, batch
from pizza_ray.coordinator import Coordinator
from pizza_ray.wire import LinkError, Report, to_error, to_fault

from pizza.abc import ResponseCache
from pizza.caches.memory import MemoryCache
from pizza.errors import AuthError, CacheError, ConfigError
from pizza.limits import Budget, Limits, Price, Spent
from pizza.testing.clock import ManualClock


class Tally:
    """What a run directory would remember."""

    def __init__(self):
        self.spent = Spent()

    def write(self, spent):
        self.spent = spent


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def calm(clock):
    """A coordinator that was answered once, so that requests need not wait for the first."""

    async def make(**options):
        coordinator = Coordinator(options.pop("limits", Limits()), clock=clock, **options)
        await coordinator.register("first", 1)
        await coordinator.exchange("first", 1, batch(asks=[ask(1)]), 1.0)
        done = Report(1, "finish", calls=1, tokens=10)
        await coordinator.exchange("first", 1, batch(reports=[done]), 0.0)
        await coordinator.lost("first")
        return coordinator

    return make


async def test_many_asks_are_one_call_and_so_are_their_grants(clock, calm):
    coordinator = await calm()
    await coordinator.register("a", 1)
    before = (await coordinator.standing()).calls
    delivery = await coordinator.exchange("a", 1, batch(asks=[ask(n) for n in range(40)]), 1.0)
    assert sorted(number for number, _ in delivery.grants) == list(range(40))
    reports = [Report(n, "finish", calls=1, tokens=10) for n in range(40)]
    await coordinator.exchange("a", 1, batch(reports=reports), 0.0)
    standing = await coordinator.standing()
    assert (standing.calls - before, standing.in_flight, standing.sent) == (2, 0, 41)


async def test_a_call_waits_until_there_is_something(clock):
    coordinator = Coordinator(Limits(max_concurrency=1), clock=clock)
    await coordinator.register("a", 1)
    await coordinator.register("b", 1)
    await coordinator.exchange("a", 1, batch(asks=[ask(1)]), 1.0)
    waiting = asyncio.create_task(coordinator.exchange("b", 1, batch(asks=[ask(1, 2)]), 60.0))
    await clock.advance(10)
    assert not waiting.done()
    done = Report(1, "finish", calls=1, tokens=10)
    await coordinator.exchange("a", 1, batch(reports=[done]), 0.0)
    await clock.settle()
    assert waiting.done()
    assert (waiting.result().grants, waiting.result().held_s) == ([(1, 0.0)], 10.0)
    again = asyncio.create_task(coordinator.exchange("b", 1, batch(), 60.0))
    await clock.advance(59)
    assert not again.done()
    await clock.advance(1)
    assert again.result().grants == []


async def test_what_a_lost_worker_held_counts_as_sent_and_the_rest_as_never_asked(clock, calm):
    tally = Tally()
    coordinator = await calm(
        limits=Limits(max_concurrency=3), budget=Budget(max_calls=100), tally=tally
    )
    await coordinator.register("a", 1)
    # Two are told, one is granted when nobody listens, two wait for a slot.
    told = await coordinator.exchange("a", 1, batch(asks=[ask(1), ask(2)]), 1.0)
    assert len(told.grants) == 2
    await coordinator.exchange("a", 1, batch(asks=[ask(3), ask(4), ask(5)]), 0.0)
    await clock.settle()
    standing = await coordinator.standing()
    assert (standing.in_flight, standing.queued, standing.sent) == (3, 2, 4)
    assert tally.spent == Spent(calls=4, tokens=40)
    await coordinator.lost("a")
    standing = await coordinator.standing()
    assert (standing.in_flight, standing.queued, standing.workers) == (0, 0, 0)
    assert standing.spent == tally.spent == Spent(calls=3, tokens=30)
    assert standing.sent == 3
    await coordinator.lost("a")
    assert (await coordinator.standing()).spent.calls == 3


async def test_a_lost_worker_is_told_and_its_reports_are_ignored(clock, calm):
    coordinator = await calm(budget=Budget(max_calls=100))
    await coordinator.register("a", 1)
    await coordinator.exchange("a", 1, batch(asks=[ask(1)]), 1.0)
    held = asyncio.create_task(coordinator.exchange("a", 1, batch(), 60.0))
    await clock.settle()
    await coordinator.lost("a", 1)
    await clock.settle()
    assert held.result().lost
    late = Report(1, "finish", calls=1, tokens=5)
    assert (await coordinator.exchange("a", 1, batch(reports=[late], asks=[ask(2)]), 1.0)).lost
    assert (await coordinator.standing()).spent == Spent(calls=2, tokens=20)
    with pytest.raises(LinkError, match="higher"):
        await coordinator.register("a", 1)
    await coordinator.register("a", 2)
    assert (await coordinator.exchange("a", 1, batch(), 0.0)).lost
    delivery = await coordinator.exchange("a", 2, batch(asks=[ask(1)]), 1.0)
    assert [number for number, _ in delivery.grants] == [1]
    await coordinator.lost("a", 1)  # of an old incarnation: nothing
    assert (await coordinator.standing()).in_flight == 1


async def test_a_later_incarnation_takes_the_place_of_an_earlier_one(clock, calm):
    coordinator = await calm()
    await coordinator.register("a", 1)
    await coordinator.exchange("a", 1, batch(asks=[ask(1)]), 1.0)
    await coordinator.register("a", 5)
    standing = await coordinator.standing()
    assert (standing.in_flight, standing.workers) == (0, 1)
    with pytest.raises(LinkError, match="incarnation 3"):
        await coordinator.register("a", 3)


async def test_a_refusal_for_the_rate_makes_every_worker_wait(clock, calm):
    coordinator = await calm()
    await coordinator.register("a", 1)
    await coordinator.register("b", 1)
    await coordinator.exchange("a", 1, batch(asks=[ask(1)]), 1.0)
    refused = Report(1, "refuse", retry_after_s=20.0)
    await coordinator.exchange("a", 1, batch(reports=[refused]), 0.0)
    waiting = asyncio.create_task(coordinator.exchange("b", 1, batch(asks=[ask(1)]), 60.0))
    await clock.advance(19.9)
    assert not waiting.done()
    await clock.advance(0.2)
    assert len(waiting.result().grants) == 1


async def test_a_rejected_key_fails_whoever_waits_at_any_worker(clock, calm):
    coordinator = await calm(limits=Limits(max_concurrency=1))
    await coordinator.register("a", 1)
    await coordinator.register("b", 1)
    await coordinator.exchange("a", 1, batch(asks=[ask(1)]), 1.0)
    waiting = asyncio.create_task(coordinator.exchange("b", 1, batch(asks=[ask(1, 2)]), 60.0))
    await clock.settle()
    wrong = AuthError("the key is wrong", backend="x:y")
    over = Report(1, "finish", calls=1, answered=False)
    await coordinator.exchange("a", 1, batch(reports=[over], bars=[to_fault(wrong)]), 0.0)
    await clock.settle()
    [(number, fault)] = waiting.result().faults
    error = to_error(fault)
    assert (number, type(error), str(error)) == (1, AuthError, "the key is wrong")
    assert error.backend == "x:y"
    standing = await coordinator.standing()
    assert (standing.in_flight, standing.queued) == (0, 0)


async def test_whoever_gives_up_while_leave_is_on_its_way_gives_it_back(clock, calm):
    coordinator = await calm(budget=Budget(max_calls=100))
    await coordinator.register("a", 1)
    await coordinator.exchange("a", 1, batch(asks=[ask(1)]), 1.0)
    await coordinator.exchange("a", 1, batch(cancels=[1, 77]), 0.0)
    standing = await coordinator.standing()
    assert (standing.in_flight, standing.sent, standing.spent.calls) == (0, 1, 1)


async def test_closing_counts_what_is_under_way_and_closes_the_store(clock, calm):
    closed = []

    class Watched(MemoryCache):
        async def aclose(self):
            closed.append(True)

    coordinator = await calm(budget=Budget(max_calls=100), store=Watched())
    await coordinator.register("a", 1)
    await coordinator.exchange("a", 1, batch(asks=[ask(1), ask(2)]), 1.0)
    await coordinator.aclose()
    assert (await coordinator.standing()).spent.calls == 3
    assert closed == [True]
    await coordinator.register("a", 2)
    delivery = await coordinator.exchange("a", 2, batch(asks=[ask(1)]), 1.0)
    assert delivery.faults[0][1][0] == "SessionClosedError"


async def test_answers_are_kept_also_those_of_a_worker_that_was_lost(clock):
    coordinator = Coordinator(Limits(), store=MemoryCache(), clock=clock)
    assert await coordinator.put_many({"a": b"1", "b": b"2"}) is None
    assert await coordinator.get_many(["a", "b", "c"]) == ({"a": b"1", "b": b"2"}, None)


async def test_a_store_that_fails_says_why(clock):
    class Full(ResponseCache):
        async def get(self, key):
            raise CacheError("cannot be read")

        async def put(self, key, value):
            raise CacheError("the disk is full")

    coordinator = Coordinator(Limits(), store=Full(), clock=clock)
    assert (await coordinator.put_many({"a": b"1"}))[:2] == ("CacheError", "the disk is full")
    assert (await coordinator.get_many(["a"]))[1][1] == "cannot be read"
    none = Coordinator(Limits(), clock=clock)
    assert "give it a store" in (await none.put_many({"a": b"1"}))[1]


def test_a_cap_on_money_needs_a_price(clock):
    with pytest.raises(ConfigError, match="price of x:y"):
        Coordinator(Limits(), budget=Budget(max_cost=1.0), backend="x:y", clock=clock)
    price = Price(prompt=1.0, completion=1.0)
    Coordinator(Limits(), budget=Budget(max_cost=1.0), price=price, clock=clock)


# --- any sequence of events ---------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 2), st.integers(1, 30)),
    st.tuples(st.just("poll"), st.integers(0, 2), st.none()),
    st.tuples(st.just("finish"), st.integers(0, 2), st.integers(0, 40)),
    st.tuples(st.just("refuse"), st.integers(0, 2), st.none()),
    st.tuples(st.just("back"), st.integers(0, 2), st.none()),
    st.tuples(st.just("cancel"), st.integers(0, 2), st.integers(0, 60)),
    st.tuples(st.just("lose"), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("advance"), st.just(0), st.floats(0.01, 30.0)),
)


class Played:
    """Three workers as honest clients of the coordinator, and what they did by their own count."""

    def __init__(self, coordinator, clock):
        self.coordinator, self.clock = coordinator, clock
        self.incarnations = [1, 1, 1]
        self.told = [{}, {}, {}]
        """What each holds by its own knowledge: number -> worst tokens."""
        self.asked = [{}, {}, {}]
        self.number = 0
        self.calls = self.tokens = 0
        """What a server may have charged."""

    async def say(self, worker, **said):
        delivery = await self.coordinator.exchange(
            f"w{worker}", self.incarnations[worker], batch(**said), 0.0
        )
        for number, _ in delivery.grants:
            # Leave for one that gave up meanwhile is not used: its cancel is on the way or told.
            if number in self.asked[worker]:
                self.told[worker][number] = self.asked[worker].pop(number)
        for number, _ in delivery.faults:
            self.asked[worker].pop(number, None)
        return delivery

    async def begin(self):
        for worker in range(3):
            await self.coordinator.register(f"w{worker}", 1)

    async def step(self, kind, worker, value):
        told, asked = self.told[worker], self.asked[worker]
        if kind == "advance":
            await self.clock.advance(value)
        elif kind == "ask":
            self.number += 1
            asked[self.number] = value
            await self.say(worker, asks=[ask(self.number, tokens=value)])
        elif kind == "cancel" and asked:
            number = sorted(asked)[value % len(asked)]
            del asked[number]
            await self.say(worker, cancels=[number])
        elif kind == "lose":
            if value:
                # Leave was on its way when the worker died: nobody knows whether it arrived.
                await self.say(worker)
            self.calls += len(told)
            self.tokens += sum(told.values())
            await self.coordinator.lost(f"w{worker}")
            told.clear()
            asked.clear()
            self.incarnations[worker] += 1
            await self.coordinator.register(f"w{worker}", self.incarnations[worker])
        elif kind == "poll":
            await self.say(worker)
        elif told:
            number = min(told)
            worst = told.pop(number)
            used = min(value or 0, worst)
            if kind == "finish":
                self.calls += 1
                self.tokens += used
                report = Report(number, "finish", calls=1, tokens=used, tokens_used=used)
            elif kind == "refuse":
                report = Report(number, "refuse", retry_after_s=1.0)
            else:
                report = Report(number, "back")
            await self.say(worker, reports=[report])
        await self.clock.settle()


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=60), st.integers(1, 12), st.integers(20, 200))
def test_no_cap_is_exceeded_and_nothing_leaks(steps, max_calls, max_tokens):
    async def body():
        clock = ManualClock()
        coordinator = Coordinator(
            Limits(requests_per_minute=600, max_concurrency=4),
            budget=Budget(max_calls=max_calls, max_tokens=max_tokens),
            clock=clock,
        )
        played = Played(coordinator, clock)
        await played.begin()
        for kind, worker, value in steps:
            await played.step(kind, worker, value)
            held = [tokens for told in played.told for tokens in told.values()]
            assert played.calls + len(held) <= max_calls
            assert played.tokens + sum(held) <= max_tokens
            assert len(held) <= 4
        for worker in range(3):
            await played.step("lose", worker, False)
        standing = await coordinator.standing()
        assert (standing.in_flight, standing.queued) == (0, 0)
        assert standing.spent == Spent(calls=played.calls, tokens=played.tokens)
        # What the caps leave can be used to the last call: no reservation was forgotten.
        left = min(max_calls - played.calls, max_tokens - played.tokens)
        for number in range(1000, 1000 + left):
            await played.say(0, asks=[ask(number, tokens=1)])
            await clock.advance(120)
            assert [n for n, _ in (await played.say(0)).grants] == [number]
            done = Report(number, "finish", calls=1, tokens=1)
            await played.say(0, reports=[done])
        await played.say(0, asks=[ask(5000, tokens=1)])
        await clock.advance(120)
        assert (await played.say(0)).faults[0][1][0] == "BudgetExceededError"

    asyncio.run(body())
