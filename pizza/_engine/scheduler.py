# SPDX-License-Identifier: Apache-2.0
"""The scheduler: every request of a session goes through one.

The order is fixed: cache -> single flight -> budget -> limiter -> attempt -> retry -> settle ->
cache. Requests run in their callers' tasks: cancelling a caller cancels exactly its requests. The
scheduler's own task group holds only what must outlive a caller: the storing of answers that were
paid for, and the batches of backends that answer several requests at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence, Sized
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from pizza._engine.attempts import Sender
from pizza._engine.batch import Batcher
from pizza._engine.borrowed import BorrowedGate
from pizza._engine.clock import Clock, SystemClock
from pizza._engine.desk import Desk
from pizza._engine.gate import Gate, LocalGate
from pizza._engine.keys import KeyMaker
from pizza._engine.outcomes import Answer, Outcome, SchedulerStatistics
from pizza._engine.retry import Backoff
from pizza._engine.shelf import Shelf
from pizza._engine.streaming import Stream
from pizza.completion import Request
from pizza.errors import PizzaError
from pizza.limits import DEFAULT_CONCURRENCY, Budget, Limits, RetryPolicy, Spent, Tally

if TYPE_CHECKING:
    from types import TracebackType

    from pizza.abc import Backend, ResponseCache

__all__ = ["Answer", "Outcome", "Scheduler", "SchedulerStatistics"]

_STORE_S = 10.0
"""How long a closing scheduler waits for answers to be stored."""

_log = logging.getLogger("pizza.scheduler")


class Scheduler:
    """Sends requests to one backend: each paid for once, within limits and budget.

    Use as ``async with Scheduler(backend) as scheduler:``. Backend and cache belong to whoever
    opened them, and stay open.

    Args:
        backend: Who answers.
        limits: Rates and concurrency.
        retry: Attempts and waits.
        budget: Caps.
        cache: Where answers are kept, or ``None``.
        clock: The clock; the system's when ``None``.
        tally: What was spent before, and where what is spent is noted; or ``None``.
        gate: Who gives leave to send instead of rates, budget and tally of its own; it stays its
            owner's to close. ``max_concurrency`` then only says how many requests are ready.

    Raises:
        ConfigError: A cap on money, and a backend without a price; rates, a budget or a tally
            beside a gate.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        limits: Limits | None = None,
        retry: RetryPolicy | None = None,
        budget: Budget | None = None,
        cache: ResponseCache | None = None,
        clock: Clock | None = None,
        tally: Tally | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._backend = backend
        limits = limits or Limits()
        # Where several requests are answered together, a slot is a place in the batch.
        slots = limits.max_concurrency or max(DEFAULT_CONCURRENCY, backend.batch_size)
        self._slots = slots
        self._clock: Clock = clock or SystemClock()
        self._group = asyncio.TaskGroup()
        self._gate: Gate
        if gate is not None:
            self._gate = BorrowedGate(gate, self._clock, limits, budget, tally)
        else:
            self._gate = LocalGate(
                replace(limits, max_concurrency=slots),
                self._clock,
                budget=budget,
                price=backend.price,
                backend=backend.name,
                tally=tally,
            )
        retry = retry or RetryPolicy()
        if backend.batch_window_s is not None:
            # One attempt may take that long: the deadline of short ones would allow no second.
            window_s = retry.attempts * backend.batch_window_s
            retry = replace(retry, deadline_s=max(retry.deadline_s, window_s))
        timeout_s = retry.attempt_timeout_s if backend.times_out else None
        answer = backend.answer
        self._batcher: Batcher | None = None
        if backend.batch_size > 1:
            size = min(backend.batch_size, slots)
            self._batcher = Batcher(backend, self._group, self._clock, timeout_s, size)
            answer = self._batcher.answer
        self._sender = Sender(
            backend,
            answer,
            self._gate,
            Backoff(retry),
            self._clock,
            # The time counts from when a batch starts, not while a request waits for its turn.
            None if self._batcher is not None else timeout_s,
        )
        self._shelf = None if cache is None else Shelf(cache, self._group)
        keys = KeyMaker(backend.identity)
        if self._batcher is None:
            self._desk = Desk(keys, self._sender, self._shelf)
        else:
            self._desk = Desk(keys, self._sender, self._shelf, self._batcher.looking_up)

    # --- life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._desk.open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._desk.open = False
        self._gate.close()
        try:
            async with self._clock.timeout(_STORE_S):
                await self._sender.aclose()
                if self._shelf is not None:
                    await self._shelf.drain()
        except TimeoutError:
            _log.warning(
                "closing took too long: %d answers are not stored.", len(self._shelf or ())
            )
        finally:
            if self._shelf is not None:
                self._shelf.give_up()
            # The tasks report and never fail, so the group adds nothing to the caller's error.
            await self._group.__aexit__(None, None, None)

    @property
    def statistics(self) -> SchedulerStatistics:
        """What happened since the scheduler was opened."""
        counters = self._sender.counters
        return SchedulerStatistics(
            calls=counters.calls,
            cache_hits=self._desk.cache_hits,
            shared=self._desk.shared,
            retries=counters.retries,
            rate_limited=counters.rate_limited,
            failures=self._desk.failures,
            usage=counters.usage,
            cost=counters.cost,
            in_flight=self._gate.in_flight,
            queued=self._gate.queued,
        )

    @property
    def spent(self) -> Spent:
        """What counts towards the caps; 0 where there are none and nobody keeps a tally."""
        return self._gate.spent

    # --- asking -------------------------------------------------------------------------------

    async def submit(self, request: Request) -> Answer:
        """The answer to one request.

        Raises:
            PizzaError: There is none; the type says why.

        Cost: one call, or none when the answer is in the cache or under way.
        """
        return await self._desk.submit(request)

    async def run(self, requests: Sequence[Request]) -> list[Answer | PizzaError]:
        """All answers, in the requests' order; failures are values.

        Cost: one call per distinct request that the cache does not hold.
        """
        results: list[Answer | PizzaError | None] = [None] * len(requests)
        async with self.stream(requests) as outcomes:
            async for outcome in outcomes:
                results[outcome.index] = outcome.answer or outcome.error
        return [result for result in results if result is not None]

    @asynccontextmanager
    async def stream(
        self, requests: Iterable[Request] | AsyncIterable[Request]
    ) -> AsyncIterator[AsyncIterator[Outcome[Request]]]:
        """Outcomes in completion order, from any number of requests, in bounded memory.

        Leaving the block early cancels the requests that are under way, and no others.

        Cost: one call per distinct request that the cache does not hold.
        """
        # Twice as many places as slots: those that wait out a back-off or for the cache leave
        # their slot to another. The gate bounds what is in flight.
        places = 2 * max(self._slots, self._backend.batch_size)
        if isinstance(requests, Sized):
            places = max(1, min(places, len(requests)))
        if self._batcher is None or isinstance(requests, AsyncIterable):
            async with Stream(self._desk, requests, places=places) as outcomes:
                yield outcomes
            return
        with self._batcher.round(places) as batches:
            source = batches.taken_from(requests)
            async with Stream(self._desk, source, places=places, batches=batches) as outcomes:
                yield outcomes
