# SPDX-License-Identifier: Apache-2.0
"""The scheduler: every request of a session goes through one.

The order is fixed: cache -> single flight -> budget -> limiter -> attempt -> retry -> settle ->
cache. Requests run in their callers' tasks: cancelling a caller cancels exactly its requests. The
scheduler's own task group holds only what must outlive a caller: the storing of answers that were
paid for, and the batches of backends that answer several requests at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence, Sized
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from pizza._engine import codec
from pizza._engine.attempts import Sender
from pizza._engine.batch import Batcher
from pizza._engine.clock import Clock, SystemClock
from pizza._engine.faults import again
from pizza._engine.flight import Flights
from pizza._engine.gate import BorrowedGate, Gate, LocalGate
from pizza._engine.keys import KeyMaker
from pizza._engine.retry import Backoff
from pizza._engine.workers import work
from pizza.caches import CacheWarning
from pizza.completion import Completion, Request, Usage
from pizza.errors import CacheError, PizzaError, SessionClosedError
from pizza.limits import DEFAULT_CONCURRENCY, Budget, Limits, RetryPolicy, Spent, Tally

if TYPE_CHECKING:
    from types import TracebackType

    from pizza.abc import Backend, ResponseCache

T = TypeVar("T")

_STORE_S = 10.0
"""How long a closing scheduler waits for answers to be stored."""

_log = logging.getLogger("pizza.scheduler")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A completion and how it was come by.

    Attributes:
        completion: What the model wrote.
        cached: It cost nothing: it came from the cache, or with an identical request.
        attempts: Attempts that were made for it; 0 when it cost nothing.
        cost: US dollars, or ``None`` when the backend's price is not known.
    """

    completion: Completion
    cached: bool
    attempts: int
    cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[T]):
    """What became of one item: an answer, or an error as a value.

    Attributes:
        item: The item.
        index: Its position in what was given, from 0.
        answer: The answer, or ``None``.
        error: Why there is none, or ``None``.
    """

    item: T
    index: int
    answer: Answer | None = None
    error: PizzaError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerStatistics:
    """What happened since the scheduler was opened.

    Attributes:
        calls: Attempts sent to the backend, retries and refusals included.
        cache_hits: Answers from the cache.
        shared: Answers that came with an identical request under way.
        retries: Attempts made again after a failure.
        rate_limited: Attempts that were refused for their rate (429).
        failures: Requests that ended in an error.
        usage: Tokens that the answers cost.
        cost: US dollars that they cost; 0 when the price is not known.
        in_flight: Attempts under way now.
        queued: Requests that wait for the limiter now.
    """

    calls: int
    cache_hits: int
    shared: int
    retries: int
    rate_limited: int
    failures: int
    usage: Usage
    cost: float
    in_flight: int
    queued: int


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
        self._cache = cache
        self._group = asyncio.TaskGroup()
        self._flights: Flights[Answer | PizzaError] = Flights()
        self._keys = KeyMaker(backend.identity)
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
        self._storing: set[asyncio.Task[None]] = set()
        self._open = False
        self._cache_hits = self._shared = self._failures = 0

    # --- life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open = False
        self._gate.close()
        try:
            async with self._clock.timeout(_STORE_S):
                await self._sender.aclose()
                while self._storing:
                    await asyncio.wait(tuple(self._storing))
        except TimeoutError:
            _log.warning("closing took too long: %d answers are not stored.", len(self._storing))
        finally:
            for task in self._storing:
                task.cancel()
            # The tasks report and never fail, so the group adds nothing to the caller's error.
            await self._group.__aexit__(None, None, None)

    @property
    def statistics(self) -> SchedulerStatistics:
        """What happened since the scheduler was opened."""
        counters = self._sender.counters
        return SchedulerStatistics(
            calls=counters.calls,
            cache_hits=self._cache_hits,
            shared=self._shared,
            retries=counters.retries,
            rate_limited=counters.rate_limited,
            failures=self._failures,
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
        if not self._open:
            raise SessionClosedError("the scheduler is not open: use it inside of 'async with'.")
        key = self._keys.key(request)
        while not self._flights.lead(key):
            outcome = await self._flights.follow(key)
            if outcome is None:
                break
            if isinstance(outcome, PizzaError):
                self._failures += 1
                raise again(outcome)
            self._shared += 1
            return Answer(completion=outcome.completion, cached=True, attempts=0, cost=0.0)
        return await self._lead(key, request)

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
        # Twice as many workers as slots: those that wait out a back-off or for the cache leave
        # their slot to another. The limiter bounds what is in flight.
        workers = 2 * max(self._slots, self._backend.batch_size)
        if isinstance(requests, Sized):
            workers = max(1, min(workers, len(requests)))
        if self._batcher is None or isinstance(requests, AsyncIterable):
            async with work(self._outcome, requests, workers=workers) as outcomes:
                yield outcomes
            return
        with self._batcher.round(workers) as taking:

            async def outcome(index: int, request: Request) -> Outcome[Request]:
                try:
                    return await self._outcome(index, request)
                finally:
                    taking.finished()

            async with work(outcome, taking.taken_from(requests), workers=workers) as outcomes:
                yield outcomes

    async def _outcome(self, index: int, request: Request) -> Outcome[Request]:
        try:
            return Outcome(item=request, index=index, answer=await self.submit(request))
        except PizzaError as error:
            return Outcome(item=request, index=index, error=error)

    # --- the leader of a flight ---------------------------------------------------------------

    async def _lead(self, key: str, request: Request) -> Answer:
        try:
            found = await self._found(key)
            if found is not None:
                self._cache_hits += 1
                answer = Answer(completion=found, cached=True, attempts=0, cost=0.0)
                self._flights.land(key, answer)
                return answer
            reply, attempts, cost = await self._sender.send(request)
        except PizzaError as error:
            self._failures += 1
            self._flights.land(key, error)
            raise
        except BaseException:
            self._flights.abandon(key)
            raise
        answer = Answer(completion=reply.completion, cached=False, attempts=attempts, cost=cost)
        if self._cache is None:
            self._flights.land(key, answer)
            return answer
        # From here on the answer is paid for: it is stored even if its caller goes away, and
        # identical requests wait for that instead of paying again.
        task = self._group.create_task(self._store(self._cache, key, answer), name="pizza-store")
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)
        # Unlike a shield this raises nothing when closing gives up on the task.
        await asyncio.wait((task,))
        return answer

    async def _found(self, key: str) -> Completion | None:
        if self._cache is None:
            return None
        with contextlib.nullcontext() if self._batcher is None else self._batcher.looking_up():
            return await self._look_up(self._cache, key)

    async def _look_up(self, cache: ResponseCache, key: str) -> Completion | None:
        try:
            data = await cache.get(key)
        except PizzaError:
            raise
        except Exception as error:
            raise CacheError(
                f"the cache cannot be read: {type(error).__name__}: {error}. Use another one, or "
                "none."
            ) from error
        if data is None:
            return None
        try:
            return codec.decode(data)
        except codec.DamagedError as error:
            warnings.warn(
                f"the cached answer {key[:12]} is damaged ({error}); it is asked again.",
                CacheWarning,
                stacklevel=2,
            )
            return None

    async def _store(self, cache: ResponseCache, key: str, answer: Answer) -> None:
        try:
            await cache.put(key, codec.encode(answer.completion))
        except Exception as error:
            # The answer is here and paid for: it is delivered, and the next run pays again.
            _log.warning("an answer could not be stored: %s", error)
        finally:
            self._flights.land(key, answer)
