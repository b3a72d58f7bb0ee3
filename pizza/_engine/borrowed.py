# SPDX-License-Identifier: Apache-2.0
"""A gate that several sessions share, as one of them sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pizza._engine.gate import Gate, Leave
from pizza.errors import ConfigError, SessionClosedError
from pizza.limits import Budget

if TYPE_CHECKING:
    from pizza._engine.clock import Clock, Timeout
    from pizza.errors import PizzaError
    from pizza.limits import Limits, RateStatus, Spent, Tally


class BorrowedGate(Gate):
    """A gate that stays somebody else's: what is closed and counted here is one session's part.

    Args:
        gate: The gate.
        clock: The clock.
        limits: What the session was given beside it.
        budget: Likewise.
        tally: Likewise.

    Raises:
        ConfigError: The session was given rates, caps or a tally of its own.
    """

    def __init__(
        self,
        gate: Gate,
        clock: Clock,
        limits: Limits,
        budget: Budget | None = None,
        tally: Tally | None = None,
    ) -> None:
        rates = (limits.requests_per_minute, limits.tokens_per_minute, limits.burst_s)
        for name, given in (
            ("limits", any(rate is not None for rate in rates)),
            ("budget", budget is not None and budget != Budget()),
            ("tally", tally is not None),
        ):
            if given:
                raise ConfigError(
                    f"{name} beside gate means two masters: the gate keeps rates, caps and tally. "
                    f"Give {name} to whoever made the gate; only Limits(max_concurrency=...) may "
                    "stand beside it."
                )
        self._gate = gate
        self._clock = clock
        self._waiting: set[Timeout] = set()
        self._held = 0
        self._closed = False

    def ticket(self, after: int = 0) -> int:
        """See `Gate.ticket`."""
        return self._gate.ticket(after)

    async def enter(self, ticket: int, worst: Spent) -> Leave:
        """See `Gate.enter`."""
        if self._closed:
            raise _closed()
        timeout = self._clock.timeout(None)
        self._waiting.add(timeout)
        try:
            async with timeout:
                leave = await self._gate.enter(ticket, worst)
        except TimeoutError as error:
            if timeout.expired():
                raise _closed() from error
            raise
        finally:
            self._waiting.discard(timeout)
        self._held += 1
        return leave

    def begin(self, leave: Leave) -> None:
        """See `Gate.begin`."""
        self._gate.begin(leave)

    def give_back(self, leave: Leave) -> None:
        """See `Gate.give_back`."""
        self._held -= 1
        self._gate.give_back(leave)

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
        self._held -= 1
        self._gate.finish(leave, spent, rate=rate, tokens_used=tokens_used, answered=answered)

    def refuse(self, leave: Leave, *, retry_after_s: float | None, rate: RateStatus | None) -> None:
        """See `Gate.refuse`."""
        self._held -= 1
        self._gate.refuse(leave, retry_after_s=retry_after_s, rate=rate)

    def bar(self, error: PizzaError) -> None:
        """See `Gate.bar`."""
        self._gate.bar(error)

    def close(self) -> None:
        """End the waiting of this session's requests; the gate itself stays open."""
        self._closed = True
        for timeout in tuple(self._waiting):
            timeout.expire()

    @property
    def in_flight(self) -> int:
        """Attempts of this session that are under way."""
        return self._held

    @property
    def queued(self) -> int:
        """Attempts of this session that wait."""
        return len(self._waiting)

    @property
    def spent(self) -> Spent:
        """See `Gate.spent`; of everybody who uses the gate."""
        return self._gate.spent


def _closed() -> SessionClosedError:
    return SessionClosedError(
        "the session was closed while this request waited: keep the work inside of "
        "'async with pizza.Session(...)'."
    )
