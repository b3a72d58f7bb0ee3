# SPDX-License-Identifier: Apache-2.0
"""What one attribution may still spend of the budget that it was given."""

from __future__ import annotations

from dataclasses import dataclass, field

from pizza.completion import Usage
from pizza.limits import Budget, Price

_EPSILON = 1e-9


@dataclass(slots=True)
class Allowance:
    """The budget of one attribution, and what of it is used.

    Answers count as if none came from the cache: what an attribution finds does not depend on what
    was asked before. (The session's own budget counts what is really paid.) One task spends it.

    Attributes:
        budget: What may be spent.
        price: What tokens cost, or ``None`` when it is not known.
        calls: Answers so far.
        usage: Their tokens.
        refused: Coalitions that were not asked about because nothing was left.
    """

    budget: Budget
    price: Price | None = None
    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    refused: int = 0
    _reserved_calls: int = 0
    _reserved_cost: float = 0.0

    @property
    def currency(self) -> str:
        """What amounts besides calls are counted in: ``"dollars"`` or ``"tokens"``."""
        return "dollars" if self.budget.max_cost is not None else "tokens"

    @property
    def limit(self) -> float | None:
        """The cap in that currency, or ``None``."""
        return self.budget.max_tokens if self.currency == "tokens" else self.budget.max_cost

    def amount(self, prompt_tokens: float, completion_tokens: float) -> float:
        """So many tokens in the currency."""
        if self.currency == "tokens" or self.price is None:
            return prompt_tokens + completion_tokens
        price = self.price
        return (prompt_tokens * price.prompt + completion_tokens * price.completion) / 1e6

    @property
    def spent(self) -> float:
        """In the currency."""
        return self.amount(self.usage.prompt_tokens, self.usage.completion_tokens)

    def reserve(self, calls: int, amount: float) -> bool:
        """Take what a coalition is expected to cost out of what is left; False = it is too much."""
        most, limit = self.budget.max_calls, self.limit
        if most is not None and self.calls + self._reserved_calls + calls > most:
            self.refused += 1
            return False
        if limit is not None and self.spent + self._reserved_cost + amount > limit + _EPSILON:
            self.refused += 1
            return False
        self._reserved_calls += calls
        self._reserved_cost += amount
        return True

    def settle(self, usage: Usage, *, calls: int = 0, amount: float = 0.0) -> None:
        """An answer has come: it cost so much, whatever had been reserved for it.

        Args:
            usage: Its tokens.
            calls: Calls of a reservation that it uses up.
            amount: What had been reserved for them.
        """
        self.calls += 1
        self.usage += usage
        self._reserved_calls -= calls
        self._reserved_cost -= amount

    def release(self, *, calls: int, amount: float) -> None:
        """A request that was reserved for has failed."""
        self._reserved_calls -= calls
        self._reserved_cost -= amount
