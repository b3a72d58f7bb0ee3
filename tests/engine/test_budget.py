# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pizza._engine.budget import Ledger
from pizza.errors import BudgetExceededError, ConfigError
from pizza.limits import Budget, Price, Spent

PRICE = Price(prompt=1.0, completion=2.0)


def test_a_cap_on_money_needs_a_price():
    with pytest.raises(ConfigError, match="price of openai:x is not known"):
        Ledger(Budget(max_cost=1.0), None, "openai:x")


async def test_without_caps_nothing_is_counted():
    ledger = Ledger(Budget(), None)
    for _ in range(3):
        await ledger.reserve(Spent(calls=1, tokens=10**9))


async def test_the_cap_is_reached_exactly_and_not_passed():
    ledger = Ledger(Budget(max_calls=3), None)
    for _ in range(3):
        await ledger.reserve(Spent(calls=1))
        ledger.settle(Spent(calls=1), Spent(calls=1))
    with pytest.raises(BudgetExceededError, match="max_calls=3, spent 3") as caught:
        await ledger.reserve(Spent(calls=1))
    assert (caught.value.kind, caught.value.limit, caught.value.spent) == ("calls", 3, 3)


async def test_who_does_not_fit_waits_for_the_others_to_settle():
    ledger = Ledger(Budget(max_tokens=100), None)
    worst, real = Spent(calls=1, tokens=60), Spent(calls=1, tokens=20)
    await ledger.reserve(worst)
    second = asyncio.create_task(ledger.reserve(worst))
    await asyncio.sleep(0)
    assert not second.done()
    ledger.settle(worst, real)
    await second
    third = asyncio.create_task(ledger.reserve(worst))
    await asyncio.sleep(0)
    ledger.settle(worst, Spent(calls=1, tokens=50))
    with pytest.raises(BudgetExceededError, match="spent 70, and this request may take 60"):
        await third


async def test_a_cancelled_waiter_does_not_hold_up_the_others():
    ledger = Ledger(Budget(max_calls=1), None)
    one = Spent(calls=1)
    await ledger.reserve(one)
    first = asyncio.create_task(ledger.reserve(one))
    second = asyncio.create_task(ledger.reserve(one))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    ledger.settle(one, Spent())
    await second


async def test_money_is_summed_without_rounding_away_the_last_request():
    ledger = Ledger(Budget(max_cost=0.3), PRICE)
    for _ in range(3):  # 3 * 0.1 > 0.3 in floating point
        await ledger.reserve(Spent(calls=1, cost=0.1))
        ledger.settle(Spent(calls=1, cost=0.1), Spent(calls=1, cost=0.1))
    with pytest.raises(BudgetExceededError, match=r"max_cost=0\.3"):
        await ledger.reserve(Spent(calls=1, cost=0.001))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 60),
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20), st.booleans()), max_size=40),
)
def test_no_number_of_concurrent_requests_passes_a_cap(cap, requests):
    spent = most = 0

    async def one(ledger, worst, real, cancelled):
        nonlocal spent, most
        reserved = Spent(calls=1, tokens=worst)
        try:
            await ledger.reserve(reserved)
        except BudgetExceededError:
            return
        used = 0
        try:
            await asyncio.sleep(0)
            if not cancelled:
                used = min(worst, real)
        finally:
            spent += used
            most = max(most, spent)
            ledger.settle(reserved, Spent(calls=1, tokens=used))

    async def body():
        ledger = Ledger(Budget(max_tokens=cap), None)
        async with asyncio.TaskGroup() as group:
            for worst, real, cancelled in requests:
                group.create_task(one(ledger, worst, real, cancelled))
        assert not ledger._waiting
        assert ledger._reserved.tokens == 0

    asyncio.run(body())
    assert most <= cap
