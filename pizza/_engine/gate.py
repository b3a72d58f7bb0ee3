# SPDX-License-Identifier: Apache-2.0
"""Who gives leave to send: the contract, and the gate of a session that is alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from pizza._engine.budget import Ledger
from pizza._engine.faults import again
from pizza._engine.limiter import Limiter
from pizza.limits import Budget, Spent

if TYPE_CHECKING:
    from pizza._engine.clock import Clock
    from pizza.errors import PizzaError
    from pizza.limits import Limits, Price, RateStatus, Tally

_BARRED_S = 60.0
"""How long a rejected key is not tried again."""


class Leave:
    """The right to send one attempt, given by a `Gate` and handed back to it exactly once.

    Attributes:
        worst: What the attempt may cost at most, and is charged when nobody knows better.
        sent_at: When it was given, seconds of the gate's clock. Whoever sends later may say when.
        begun: Whether the attempt was sent, as far as the gate was told.
        held: What the gate itself knows it by; nobody else's.
    """

    __slots__ = ("begun", "held", "sent_at", "worst")

    def __init__(self, worst: Spent, sent_at: float, held: Any) -> None:
        self.worst = worst
        self.sent_at = sent_at
        self.begun = False
        self.held = held


class Gate(ABC):
    """Gives leave to send within rates, concurrency and budget.

    Every attempt takes these steps: `enter`, then either `give_back`, or `begin` and one of
    `finish` and `refuse`. All but `enter` are synchronous and return at once. One event loop
    uses a gate.
    """

    @abstractmethod
    def ticket(self, after: int = 0) -> int:
        """A place in the queue, kept over all attempts of one request.

        Args:
            after: The ticket of the same caller's request before it; 0 = there is none. Who has
                much waiting stands behind himself, not in front of others.
        """

    @abstractmethod
    async def enter(self, ticket: int, worst: Spent) -> Leave:
        """Wait for the turn. Whoever is cancelled while waiting holds nothing afterwards.

        Args:
            ticket: From `ticket`; lower ones go first.
            worst: What the attempt may cost at most.

        Raises:
            BudgetExceededError: What is spent leaves no room for it.
            SessionClosedError: The gate was closed.
            PizzaError: Nobody may send, and why: see `bar`.
        """

    @abstractmethod
    def begin(self, leave: Leave) -> None:
        """The attempt is about to be sent: from now on it may have to be paid."""

    @abstractmethod
    def give_back(self, leave: Leave) -> None:
        """The attempt was never sent."""

    @abstractmethod
    def finish(
        self,
        leave: Leave,
        spent: Spent,
        *,
        rate: RateStatus | None = None,
        tokens_used: int | None = None,
        answered: bool = True,
    ) -> None:
        """The attempt is over, and it was not refused for its rate.

        Args:
            leave: The attempt's.
            spent: What it cost.
            rate: What the server said of its limits.
            tokens_used: Tokens that the server counted; ``None`` = not known, as reserved.
            answered: Whether the server said anything that shows that it works.
        """

    @abstractmethod
    def refuse(self, leave: Leave, *, retry_after_s: float | None, rate: RateStatus | None) -> None:
        """The server refused the attempt for its rate (429): everybody waits."""

    @abstractmethod
    def bar(self, error: PizzaError) -> None:
        """Nobody may send, since a key was rejected: who waits or comes soon gets this error."""

    @abstractmethod
    def close(self) -> None:
        """Nobody passes any more; who waits gets a `SessionClosedError`."""

    @property
    @abstractmethod
    def in_flight(self) -> int:
        """Leaves that were given and not handed back."""

    @property
    @abstractmethod
    def queued(self) -> int:
        """Attempts that wait for their rate or for a slot."""

    @property
    @abstractmethod
    def spent(self) -> Spent:
        """What counts towards the caps; 0 where there are none and nobody keeps a tally."""


class LocalGate(Gate):
    """The gate of one process: the budget first, then rates and concurrency.

    Args:
        limits: Rates and concurrency.
        clock: The clock.
        budget: Caps.
        price: What the backend's tokens cost, or ``None`` when it is not known.
        backend: The backend's name, for messages.
        tally: What was spent before, and where what is spent is noted; or ``None``.
        seed: Seed of the jitter after a refusal.
        lag_s: Seconds by which an attempt may be sent later than leave is given for it; rates are
            kept by what is sent.

    Raises:
        ConfigError: A cap on money without a price.
    """

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        *,
        budget: Budget | None = None,
        price: Price | None = None,
        backend: str = "the backend",
        tally: Tally | None = None,
        seed: int | None = None,
        lag_s: float = 0.0,
    ) -> None:
        self._clock = clock
        self._limiter = Limiter(limits, clock, seed, lag_s=lag_s)
        self._ledger = Ledger(budget or Budget(), price, backend, tally)
        self._barred: tuple[float, PizzaError] | None = None

    def ticket(self, after: int = 0) -> int:
        """See `Gate.ticket`."""
        return self._limiter.ticket(after)

    async def enter(self, ticket: int, worst: Spent) -> Leave:
        """See `Gate.enter`."""
        if self._barred is not None:
            self._check_barred()
        await self._ledger.reserve(worst)
        try:
            if self._barred is not None:
                self._check_barred()
            permit = await self._limiter.acquire(ticket, worst.tokens, worst.calls)
        except BaseException:
            self._ledger.settle(worst, Spent(), sent=False)
            raise
        return Leave(worst, permit.sent_at, permit)

    def begin(self, leave: Leave) -> None:
        """See `Gate.begin`."""
        leave.begun = True
        self._ledger.begin(leave.worst)

    def give_back(self, leave: Leave) -> None:
        """See `Gate.give_back`."""
        self._ledger.settle(leave.worst, Spent(), sent=leave.begun)
        self._limiter.give_back(leave.held)

    def finish(
        self,
        leave: Leave,
        spent: Spent,
        *,
        rate: RateStatus | None = None,
        tokens_used: int | None = None,
        answered: bool = True,
    ) -> None:
        """See `Gate.finish`."""
        self._ledger.settle(leave.worst, spent)
        leave.held.sent_at = leave.sent_at
        self._limiter.finish(leave.held, rate=rate, tokens_used=tokens_used, answered=answered)

    def refuse(self, leave: Leave, *, retry_after_s: float | None, rate: RateStatus | None) -> None:
        """See `Gate.refuse`."""
        self._ledger.settle(leave.worst, Spent())
        leave.held.sent_at = leave.sent_at
        self._limiter.refuse(leave.held, retry_after_s=retry_after_s, rate=rate)

    def bar(self, error: PizzaError) -> None:
        """See `Gate.bar`."""
        self._barred = (self._clock.now() + _BARRED_S, error)
        self._limiter.fail_waiters(error)

    def close(self) -> None:
        """See `Gate.close`."""
        self._limiter.close()

    @property
    def in_flight(self) -> int:
        """See `Gate.in_flight`."""
        return self._limiter.in_flight

    @property
    def queued(self) -> int:
        """See `Gate.queued`."""
        return self._limiter.queued

    @property
    def spent(self) -> Spent:
        """See `Gate.spent`."""
        return self._ledger.spent

    def _check_barred(self) -> None:
        if self._barred is not None:
            until, error = self._barred
            if self._clock.now() < until:
                raise again(error)
            self._barred = None
