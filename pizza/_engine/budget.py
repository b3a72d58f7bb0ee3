# SPDX-License-Identifier: Apache-2.0
"""Hard caps on calls, tokens and money.

Every attempt reserves its worst case before it is sent and settles to what it really cost after,
so that no number of concurrent requests can take the total over a cap. A request that does not
fit while others still hold reservations waits for them to settle: it is refused only when what is
really spent leaves no room for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from pizza.errors import BudgetExceededError, ConfigError
from pizza.limits import Spent

if TYPE_CHECKING:
    from pizza.limits import Budget, Price, Tally

_EPSILON = 1e-12
"""Dollars: sums of floats that are equal on paper must not differ."""


class _Waiter:
    __slots__ = ("turn",)

    def __init__(self) -> None:
        self.turn: asyncio.Future[None] | None = None


class _Sum:
    """Calls, tokens and dollars of several attempts."""

    __slots__ = ("calls", "cost", "tokens")

    def __init__(self) -> None:
        self.calls = 0
        self.tokens = 0
        self.cost = 0.0

    def add(self, amount: Spent) -> None:
        self.calls += amount.calls
        self.tokens += amount.tokens
        self.cost += amount.cost

    def take_off(self, amount: Spent) -> None:
        self.calls -= amount.calls
        self.tokens -= amount.tokens
        self.cost -= amount.cost


class Ledger:
    """What was spent and what is reserved.

    Args:
        budget: The caps.
        price: The backend's price, or ``None`` when it is unknown.
        backend: The backend's name, for messages.
        tally: What was spent before, which counts towards the caps, and where what is spent is
            noted; or ``None``.

    Raises:
        ConfigError: A cap on money without a price.
    """

    def __init__(
        self,
        budget: Budget,
        price: Price | None,
        backend: str = "the backend",
        tally: Tally | None = None,
    ) -> None:
        if budget.max_cost is not None and price is None:
            raise ConfigError(
                f"max_cost={budget.max_cost:g} cannot be kept: the price of {backend} is not "
                "known. Use max_tokens or max_calls, or give the backend its price."
            )
        self._caps: list[tuple[str, float]] = [
            (kind, cap)
            for kind, cap in (
                ("calls", budget.max_calls),
                ("tokens", budget.max_tokens),
                ("cost", budget.max_cost),
            )
            if cap is not None
        ]
        self._tally = tally
        self._counts = bool(self._caps) or tally is not None
        before = Spent() if tally is None else tally.spent
        self._spent, self._reserved, self._sent = _Sum(), _Sum(), _Sum()
        self._spent.add(before)
        self._waiting: deque[_Waiter] = deque()

    @property
    def spent(self) -> Spent:
        """What is spent so far, as far as anybody has to know: with caps, or with a tally."""
        spent = self._spent
        return Spent(calls=spent.calls, tokens=spent.tokens, cost=spent.cost)

    async def reserve(self, amount: Spent) -> None:
        """Reserve the worst case of one attempt; every reservation must be settled once.

        Raises:
            BudgetExceededError: What is spent leaves no room.
        """
        if not self._counts:
            return
        if not self._waiting and self._fits(amount):
            self._reserved.add(amount)
            return
        waiter = _Waiter()
        self._waiting.append(waiter)
        try:
            # First come, first served: only the head of the queue looks.
            while not (self._waiting[0] is waiter and self._takes(amount)):
                waiter.turn = asyncio.get_running_loop().create_future()
                await waiter.turn
        finally:
            self._waiting.remove(waiter)
            self._wake()

    def _takes(self, amount: Spent) -> bool:
        self._refuse_if_hopeless(amount)
        fits = self._fits(amount)
        if fits:
            self._reserved.add(amount)
        return fits

    def begin(self, amount: Spent) -> None:
        """An attempt that was reserved for is about to be sent: who is killed now has it noted.

        What only waits is not noted: there may be a thousand, and none of them costs anything.
        """
        if self._tally is not None:
            self._sent.add(amount)
            self._note(self._tally)

    def settle(self, reserved: Spent, spent: Spent, *, sent: bool = True) -> None:
        """The attempt is over: it cost this much instead of what was reserved.

        Args:
            reserved: What had been reserved for it.
            spent: What it cost.
            sent: Whether it had begun.
        """
        if not self._counts:
            return
        self._reserved.take_off(reserved)
        self._spent.add(spent)
        if self._tally is not None and sent:
            self._sent.take_off(reserved)
            # What is noted is at least what is spent: the next attempt notes it anew. Here it is
            # noted when nothing is under way, and when an attempt cost more than its worst case.
            dearer = spent.tokens > reserved.tokens or spent.cost > reserved.cost
            if dearer or not self._sent.calls:
                self._note(self._tally)
        if self._waiting:
            self._wake()

    def _note(self, tally: Tally) -> None:
        spent, sent = self._spent, self._sent
        tally.write(
            Spent(
                calls=spent.calls + sent.calls,
                tokens=spent.tokens + sent.tokens,
                cost=spent.cost + max(0.0, sent.cost),
            )
        )

    def _wake(self) -> None:
        if self._waiting and (turn := self._waiting[0].turn) is not None and not turn.done():
            turn.set_result(None)

    def _fits(self, amount: Spent) -> bool:
        spent, reserved = self._spent, self._reserved
        for kind, cap in self._caps:
            planned = getattr(spent, kind) + getattr(reserved, kind) + getattr(amount, kind)
            if planned > cap + _EPSILON:
                return False
        return True

    def _refuse_if_hopeless(self, amount: Spent) -> None:
        for kind, cap in self._caps:
            need, spent = getattr(amount, kind), getattr(self._spent, kind)
            if spent + need > cap + _EPSILON:
                reserved = getattr(self._reserved, kind)
                raise BudgetExceededError(
                    f"the budget is used up: max_{kind}={cap:g}, spent {spent:g}"
                    + (f" (another {reserved:g} under way)" if reserved else "")
                    + f", and this request may take {need:g}. What was answered is in the cache: "
                    "run again with a larger budget to go on from here.",
                    kind=kind,
                    limit=cap,
                    spent=spent + reserved,
                )
