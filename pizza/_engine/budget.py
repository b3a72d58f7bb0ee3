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
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pizza.errors import BudgetExceededError, ConfigError

if TYPE_CHECKING:
    from pizza.limits import Budget, Price

_EPSILON = 1e-12
"""Dollars: sums of floats that are equal on paper must not differ."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Calls, tokens and dollars."""

    calls: int = 0
    tokens: int = 0
    cost: float = 0.0


class _Waiter:
    __slots__ = ("turn",)

    def __init__(self) -> None:
        self.turn: asyncio.Future[None] | None = None


class Ledger:
    """What was spent and what is reserved.

    Args:
        budget: The caps.
        price: The backend's price, or ``None`` when it is unknown.
        backend: The backend's name, for messages.

    Raises:
        ConfigError: A cap on money without a price.
    """

    def __init__(self, budget: Budget, price: Price | None, backend: str = "the backend") -> None:
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
        self._spent = {"calls": 0.0, "tokens": 0.0, "cost": 0.0}
        self._reserved = {"calls": 0.0, "tokens": 0.0, "cost": 0.0}
        self._waiting: deque[_Waiter] = deque()

    async def reserve(self, amount: Amount) -> None:
        """Reserve the worst case of one attempt; every reservation must be settled once.

        Raises:
            BudgetExceededError: What is spent leaves no room.
        """
        if not self._caps:
            return
        if not self._waiting and self._fits(amount):
            self._add(self._reserved, amount, 1)
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

    def _takes(self, amount: Amount) -> bool:
        self._refuse_if_hopeless(amount)
        fits = self._fits(amount)
        if fits:
            self._add(self._reserved, amount, 1)
        return fits

    def settle(self, reserved: Amount, spent: Amount) -> None:
        """The attempt is over: it cost this much instead of what was reserved."""
        if not self._caps:
            return
        self._add(self._reserved, reserved, -1)
        self._add(self._spent, spent, 1)
        self._wake()

    def _wake(self) -> None:
        if self._waiting and (turn := self._waiting[0].turn) is not None and not turn.done():
            turn.set_result(None)

    def _fits(self, amount: Amount) -> bool:
        return all(
            self._spent[kind] + self._reserved[kind] + getattr(amount, kind) <= cap + _EPSILON
            for kind, cap in self._caps
        )

    def _refuse_if_hopeless(self, amount: Amount) -> None:
        for kind, cap in self._caps:
            need, spent = getattr(amount, kind), self._spent[kind]
            if spent + need > cap + _EPSILON:
                reserved = self._reserved[kind]
                raise BudgetExceededError(
                    f"the budget is used up: max_{kind}={cap:g}, spent {spent:g}"
                    + (f" (another {reserved:g} under way)" if reserved else "")
                    + f", and this request may take {need:g}. What was answered is in the cache: "
                    "run again with a larger budget to go on from here.",
                    kind=kind,
                    limit=cap,
                    spent=spent + reserved,
                )

    @staticmethod
    def _add(total: dict[str, float], amount: Amount, sign: int) -> None:
        total["calls"] += sign * amount.calls
        total["tokens"] += sign * amount.tokens
        total["cost"] += sign * amount.cost
