# SPDX-License-Identifier: Apache-2.0
"""Callers with few requests do not wait for all that others have asked."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from pizza._engine.turns import Turns
from pizza.gate import LocalGate
from pizza.limits import Limits, Spent
from pizza.testing.clock import ManualClock

ONE = Spent(calls=1, tokens=1)


def served(asked):
    """The order in which one slot serves callers who ask for so many requests at once."""
    turns = Turns()
    waiting = []
    for caller, n in asked:
        last = 0
        for _ in range(n):
            last = turns.ticket(last)
            waiting.append((last, caller))
    order = []
    for ticket, caller in sorted(waiting):
        turns.passed(ticket)
        order.append(caller)
    return order


def test_requests_of_one_caller_go_in_the_order_of_asking():
    turns = Turns()
    tickets = [0]
    for _ in range(100):
        tickets.append(turns.ticket(tickets[-1]))
    assert tickets == sorted(set(tickets))


def test_callers_with_one_request_each_go_in_the_order_of_asking():
    assert served([(n, 1) for n in range(50)]) == list(range(50))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_a_caller_waits_for_as_many_of_each_other_as_it_has_itself(sizes):
    order = served(list(enumerate(sizes)))
    for caller, n in enumerate(sizes):
        end = len(order) - order[::-1].index(caller)
        for other in set(range(len(sizes))) - {caller}:
            assert order[:end].count(other) <= n


@given(st.integers(0, 200), st.integers(1, 30))
def test_who_comes_late_gets_half_of_what_is_left(passed, n):
    turns = Turns()
    last, crowd = 0, []
    for _ in range(300):
        last = turns.ticket(last)
        crowd.append(last)
    for ticket in crowd[:passed]:
        turns.passed(ticket)
    own, last = [], 0
    for _ in range(n):
        last = turns.ticket(last)
        own.append(last)
    between = [ticket for ticket in crowd[passed:] if ticket < own[-1]]
    assert len(between) <= n


def test_a_request_that_goes_again_is_in_front_of_who_asked_later():
    turns = Turns()
    first, second = turns.ticket(), turns.ticket()
    turns.passed(first)
    assert first < second < turns.ticket()


async def test_a_short_caller_is_not_behind_all_requests_of_a_long_one():
    clock = ManualClock()
    gate = LocalGate(Limits(max_concurrency=2), clock)
    order = []

    async def ask(caller, ticket):
        leave = await gate.enter(ticket, ONE)
        gate.begin(leave)
        await clock.sleep(1.0)
        gate.finish(leave, ONE)
        order.append(caller)

    async def one(caller, n):
        last = 0
        async with asyncio.TaskGroup() as group:
            for _ in range(n):
                last = gate.ticket(last)
                group.create_task(ask(caller, last))

    async def both():
        async with asyncio.TaskGroup() as group:
            group.create_task(one("long", 100))
            await clock.sleep(5.0)
            group.create_task(one("short", 10))

    await clock.run(both(), limit=10_000)
    before = order[: len(order) - order[::-1].index("short")]
    # Ten when it came, two under way, then one each.
    assert before.count("long") <= 10 + 2 + 10 + 1
