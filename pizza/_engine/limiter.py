# SPDX-License-Identifier: Apache-2.0
"""One gate in front of a backend: concurrency, requests and tokens, a fair share to each caller.

A request passes when a slot is free, both quotas have room and nobody was told to wait; all three
are taken in one step, so nothing is held while waiting for the rest. Waiters are ordered by
ticket (`Turns`). A request that has to go again keeps its ticket, which puts it in front of all
that came later. One timer serves the head of the queue; nobody polls.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pizza._engine.faults import again
from pizza._engine.quota import Quota
from pizza._engine.turns import Turns
from pizza.errors import PizzaError, SessionClosedError
from pizza.limits import DEFAULT_CONCURRENCY

if TYPE_CHECKING:
    from pizza._engine.clock import Clock, Timer
    from pizza.limits import Limits, RateStatus

_PROBE_S = 5.0
"""How long the first request is waited for before others follow it."""
_LONGEST_PAUSE_S = 60.0
"""A minute refills every per-minute quota; servers were seen to ask for half an hour."""
_JITTER_S = 0.05
_CALM_S = 1.0
"""Seconds without a refusal after which a rate that was slowed down is raised again."""
_APART_S = 20.0
"""Refusals further apart than this do not mean that the rate that the user told is too high."""
_OVERTAKE_S = 0.2
"""Requests sent within this time may arrive in another order."""


@dataclass(slots=True, eq=False)
class Permit:
    """The right to send one attempt, and what must be known to learn from its answer."""

    ticket: int
    cost: float
    tokens: float
    sent_at: float
    mark_requests: float
    mark_tokens: float
    promised: bool
    epoch: int
    number: int = 0


class _Waiter:
    __slots__ = ("cost", "future", "ticket", "tokens")

    def __init__(
        self, ticket: int, cost: float, tokens: float, future: asyncio.Future[Permit]
    ) -> None:
        self.ticket = ticket
        self.cost = cost
        self.tokens = tokens
        self.future = future


class Limiter:
    """The gate. All methods but `acquire` are synchronous and return at once.

    Args:
        limits: What the user allows.
        clock: The clock.
        seed: Seed of the jitter.
        lag_s: Seconds by which attempts may be sent later than they are let pass: see `Quota`.
    """

    def __init__(
        self, limits: Limits, clock: Clock, seed: int | None = None, *, lag_s: float = 0.0
    ) -> None:
        now = clock.now()
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 - jitter
        self._slots = limits.max_concurrency or DEFAULT_CONCURRENCY
        self._lag_s = lag_s
        burst_s = limits.burst_s
        self.requests = Quota(limits.requests_per_minute, burst_s, now, lag_s=lag_s)
        self.tokens = Quota(limits.tokens_per_minute, burst_s, now, estimated=True, lag_s=lag_s)
        self.told = self.requests.told or self.tokens.told
        self.in_flight = 0
        self._queue: list[tuple[int, int, _Waiter]] = []
        self._order = 0
        self._turns = Turns()
        self._sendings = 0
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._answered = False
        self._probe_until = 0.0
        self._paused_until = now
        self._epoch = 0
        """Number of the pause: refusals of requests sent before it belong to it."""
        self._refusals = 0
        self._refused_at = now
        self._sped_up_at = now
        self._sent: dict[int, Permit] = {}
        """Attempts under way, in the order of sending."""
        self._first_sent_at: float | None = None
        self._successes = 0
        self._closed: PizzaError | None = None

    # --- passing ------------------------------------------------------------------------------

    def ticket(self, after: int = 0) -> int:
        """A place in the queue, kept over all attempts of one request.

        Args:
            after: The ticket of the same caller's request before it; 0 = there is none.
        """
        return self._turns.ticket(after)

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return sum(not waiter.future.done() for _, _, waiter in self._queue)

    async def acquire(self, ticket: int, tokens: float, cost: float = 1.0) -> Permit:
        """Wait for the turn; the caller hands the permit to exactly one of the other methods.

        Args:
            ticket: From `ticket`.
            tokens: Tokens to reserve.
            cost: Requests, more than one for a batch that the server counts one by one.

        Raises:
            SessionClosedError: The gate was closed.
        """
        if self._closed is not None:
            raise again(self._closed)
        if not self._queue:
            now = self._clock.now()
            if self._slot_free(now) and self._wait(cost, tokens, now) <= 0:
                return self._grant(ticket, cost, tokens, now)
        future: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(ticket, cost, tokens, future)
        self._order += 1
        heapq.heappush(self._queue, (ticket, self._order, waiter))
        if self._queue[0][2] is waiter:
            self.admit()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.give_back(future.result())
            else:
                future.cancel()
                self.admit()
            raise

    def admit(self) -> None:
        """Let pass whoever may, in order; set the timer for the next one."""
        now = self._clock.now()
        queue = self._queue
        while queue:
            waiter = queue[0][2]
            if waiter.future.done():
                heapq.heappop(queue)
                continue
            if not self._slot_free(now):
                # An answer frees the slot and calls again; only the probe's patience is timed.
                if not self._answered and self.in_flight < self._slots:
                    self._call_at(self._probe_until, now)
                return
            delay = self._wait(waiter.cost, waiter.tokens, now)
            if delay > 0:
                self._call_at(now + delay, now)
                return
            heapq.heappop(queue)
            waiter.future.set_result(self._grant(waiter.ticket, waiter.cost, waiter.tokens, now))

    def _slot_free(self, now: float) -> bool:
        if self.in_flight >= self._slots:
            return False
        # Until something was answered one request goes alone: a wrong key costs one request.
        return self._answered or self.in_flight == 0 or now >= self._probe_until

    def _wait(self, cost: float, tokens: float, now: float) -> float:
        return max(
            self._paused_until - now, self.requests.wait(cost, now), self.tokens.wait(tokens, now)
        )

    def _grant(self, ticket: int, cost: float, tokens: float, now: float) -> Permit:
        self._turns.passed(ticket)
        self.in_flight += 1
        if not self._answered and self.in_flight == 1:
            self._probe_until = now + _PROBE_S
        if self._first_sent_at is None:
            self._first_sent_at = now
        # Room even if the server has counted none of those under way: then a refusal is a lie.
        promised = self.requests.announced and self.requests.room() > 2 + cost + self.in_flight
        self.requests.take(cost)
        self.tokens.take(tokens)
        permit = Permit(
            ticket, cost, tokens, now, self.requests.sent, self.tokens.sent, promised, self._epoch
        )
        self._sendings += 1
        permit.number = self._sendings
        self._sent[permit.number] = permit
        return permit

    def _call_at(self, when: float, now: float) -> None:
        if self._timer is not None:
            if self._timer_at == when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._clock.call_later(when - now, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.admit()

    # --- after an attempt ---------------------------------------------------------------------

    def give_back(self, permit: Permit) -> None:
        """The attempt was never sent."""
        self._forget(permit)
        moved = self._lag_s > 0 and self._clock.now() > permit.sent_at
        self.requests.give_back(permit.cost, sent=False, moved=moved)
        self.tokens.give_back(permit.tokens, sent=False, moved=moved)
        self.admit()

    def finish(
        self,
        permit: Permit,
        *,
        rate: RateStatus | None = None,
        tokens_used: float | None = None,
        answered: bool = True,
    ) -> None:
        """The attempt is over, and it was not refused for the rate.

        Args:
            permit: The attempt's permit.
            rate: What the server said of its limits.
            tokens_used: The real cost; ``None`` = as reserved.
            answered: Whether the server said anything at all.
        """
        self._forget(permit)
        if tokens_used is not None and tokens_used != permit.tokens:
            if tokens_used < permit.tokens:
                self.tokens.give_back(permit.tokens - tokens_used, sent=True)
            else:
                self.tokens.charge(tokens_used - permit.tokens)
        if rate is not None:
            self._observe(permit, rate)
        if answered:
            self._answered = True
            self._successes += 1
            self._refusals = 0
            if self._epoch and self._queue:
                self._speed_up()
        if self._queue:
            self.admit()

    def _forget(self, permit: Permit) -> None:
        self.in_flight -= 1
        del self._sent[permit.number]

    def _speed_up(self) -> None:
        """After a refusal and a calm, and only while somebody waits: go faster again."""
        now = self._clock.now()
        since = max(self._refused_at + _CALM_S, self._sped_up_at)
        if now - since >= 0.1:
            self._sped_up_at = now
            self.requests.speed_up(now, now - since)
            self.tokens.speed_up(now, now - since)

    def refuse(
        self, permit: Permit, *, retry_after_s: float | None, rate: RateStatus | None
    ) -> None:
        """The server said 429: everybody waits."""
        now = self._clock.now()
        self._forget(permit)
        self._answered = True
        if rate is not None:
            self._observe(permit, rate, charged=False)
            if rate.remaining_requests is None or rate.remaining_requests >= 1:
                self.tokens.refused(permit.tokens, rate.remaining_tokens, retry_after_s)
        first = permit.epoch == self._epoch
        if first:
            self._epoch += 1
            self._refusals += 1
            self._learn_from_refusal(permit, now)
        self.requests.punish(now)
        self.tokens.punish(now)
        self._refused_at = now
        wait = self._pause(retry_after_s, rate) if first or retry_after_s is not None else 0.0
        self._paused_until = max(self._paused_until, now + wait)
        self.admit()

    def _learn_from_refusal(self, permit: Permit, now: float) -> None:
        announced = self.requests.server.rate if self.requests.server is not None else None
        if permit.promised:
            self.requests.distrust(now)
            self.tokens.distrust(now)
        apart = now - self._refused_at > _APART_S
        if self.requests.server is None and self.tokens.server is None:
            # The server said no limit and the user told none: start from what it let pass.
            elapsed = max(1.0, now - (self._first_sent_at or now))
            seen = self._successes / elapsed
            self.requests.guess(min(seen, announced or seen), now)
        elif self._refusals > 1:
            self._slow_down(now, 0.5)
        elif not (apart and self.told):
            self._slow_down(now, 0.85)

    def _slow_down(self, now: float, factor: float) -> None:
        self.requests.slow_down(now, factor)
        self.tokens.slow_down(now, factor)

    def _pause(self, retry_after_s: float | None, rate: RateStatus | None) -> float:
        if retry_after_s is not None and retry_after_s >= 0:
            return min(retry_after_s, _LONGEST_PAUSE_S) + self._random.uniform(0, _JITTER_S)
        if rate is not None and rate.remaining_requests is not None and self.requests.window:
            return 0.0
        wait = min(0.5 * 2.0 ** min(self._refusals - 1, 60), _LONGEST_PAUSE_S)
        return wait * self._random.uniform(1.0, 1.2)

    def _observe(self, permit: Permit, rate: RateStatus, *, charged: bool = True) -> None:
        now = self._clock.now()
        requests, tokens = self._on_the_way(permit)
        self.requests.observe(
            limit=rate.limit_requests,
            remaining=rate.remaining_requests,
            reset_s=rate.reset_requests_s,
            cost=permit.cost,
            mark=permit.mark_requests,
            on_the_way=requests,
            sent_at=permit.sent_at,
            now=now,
        )
        self.tokens.observe(
            limit=rate.limit_tokens,
            remaining=rate.remaining_tokens,
            reset_s=rate.reset_tokens_s,
            cost=permit.tokens,
            mark=permit.mark_tokens,
            on_the_way=tokens,
            sent_at=permit.sent_at,
            now=now,
            undisturbed=charged and permit.epoch == self._epoch,
        )

    def _on_the_way(self, permit: Permit) -> tuple[float, float]:
        """Requests and tokens sent just before this attempt that are not answered yet."""
        requests = tokens = 0.0
        for number, other in self._sent.items():
            if number > permit.number:
                break
            if other.sent_at >= permit.sent_at - _OVERTAKE_S:
                requests += other.cost
                tokens += other.tokens
        return requests, tokens

    # --- giving up ----------------------------------------------------------------------------

    def fail_waiters(self, error: PizzaError) -> None:
        """Everybody who waits gets this error."""
        queue, self._queue = self._queue, []
        for _, _, waiter in queue:
            if not waiter.future.done():
                waiter.future.set_exception(again(error))

    def close(self) -> None:
        """Nobody passes any more."""
        self._closed = SessionClosedError(
            "the session was closed while this request waited: keep the work inside of "
            "'async with pizza.Session(...)'."
        )
        self.fail_waiters(self._closed)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
