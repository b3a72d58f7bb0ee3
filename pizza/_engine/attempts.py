# SPDX-License-Identifier: Apache-2.0
"""One request until it is answered or given up: gate -> attempt -> retry -> settle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pizza._engine.deadlines import Deadlines
from pizza._engine.faults import again, contained
from pizza._engine.turns import Line
from pizza._observe_requests import NOBODY, Trail, trail
from pizza.completion import Usage
from pizza.errors import (
    AskAgainError,
    AuthError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    MalformedResponseError,
    PermanentError,
    PizzaError,
    QuotaExhaustedError,
    RateLimitedError,
    RetriesExhaustedError,
    SessionClosedError,
    TransientError,
)
from pizza.limits import Spent

if TYPE_CHECKING:
    from pizza._engine.clock import Clock
    from pizza._engine.gate import Gate, Leave
    from pizza._engine.retry import Backoff
    from pizza.abc import Backend
    from pizza.completion import Reply, Request
    from pizza.limits import RateStatus


MAX_CORRECTIONS = 4
"""How often one request is asked again because of what its refusal taught."""


@dataclass(slots=True)
class Counters:
    """What happened so far."""

    calls: int = 0
    retries: int = 0
    rate_limited: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    @property
    def usage(self) -> Usage:
        """Tokens that the answers cost."""
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens)


@dataclass(slots=True)
class _Course:
    """Where one request stands."""

    ticket: int
    worst: Spent
    attempts: int = 0
    refusals: int = 0
    corrections: int = 0
    wasted: float = 0.0
    first_at: float | None = None

    @property
    def begun(self) -> int:
        return self.attempts + self.refusals + self.corrections


class Sender:
    """Sends requests, one `send` per request, in the caller's task.

    Args:
        backend: Who answers.
        answer: `Backend.answer`, or what stands before it.
        gate: Who gives leave to send.
        backoff: When to try again.
        clock: The clock.
        timeout_s: Seconds that one attempt may take; ``None`` when ``answer`` sees to that itself.
    """

    def __init__(
        self,
        backend: Backend,
        answer: Callable[[Request], Awaitable[Reply]],
        gate: Gate,
        backoff: Backoff,
        clock: Clock,
        timeout_s: float | None,
    ) -> None:
        self._backend = backend
        self._answer = answer
        self._gate = gate
        self._backoff = backoff
        self._clock = clock
        self._timeout_s = timeout_s
        self._price = backend.price
        self._closed = False
        self._deadlines = Deadlines(clock, timeout_s)
        self._idle = asyncio.Event()
        self.counters = Counters()

    def trail(self, key: str, request: Request) -> Trail:
        """What tells of a request to whoever listens; its answer is cached under ``key``."""
        return trail(key, request, self._backend, self._clock.now)

    async def send(
        self, request: Request, trail: Trail = NOBODY, line: Line | None = None
    ) -> tuple[Reply, int, float | None]:
        """The reply, the number of attempts, and its cost in dollars if the price is known.

        Args:
            request: The request.
            trail: Tells of it.
            line: Other requests of its caller, behind which it stands.

        Raises:
            PizzaError: No answer, and why.
        """
        course = self._course(request, line or Line())
        while True:
            leave = await self._gate.enter(course.ticket, course.worst)
            if course.first_at is None:
                course.first_at = leave.sent_at
            elif leave.sent_at - course.first_at > self._backoff.policy.deadline_s:
                self._gate.give_back(leave)
                raise self._exhausted(course, None)
            course.attempts += 1
            try:
                number = course.begun
                reply = await trail.attempt(number, self._attempt(request, leave))
            except AskAgainError as error:
                self._corrected(course, error, leave)
                trail.waits(number, 0.0)
            except RateLimitedError as error:
                # The whole limiter waits for it, and the request keeps its place: that is not
                # an attempt that failed.
                course.attempts -= 1
                course.refusals += 1
                if self._elapsed(course) > self._backoff.policy.deadline_s:
                    raise self._exhausted(course, error) from error
            except TransientError as error:
                wait = self._backoff.wait(course.attempts)
                if not self._backoff.may_try(course.attempts, self._elapsed(course), wait):
                    raise self._exhausted(course, error) from error
                self.counters.retries += 1
                trail.waits(number, wait)
                await self._clock.sleep(wait)
            else:
                cost = self._settle(reply.completion.usage, leave, reply.rate)
                made = course.attempts + course.corrections
                return reply, made, None if cost is None else cost + course.wasted

    async def aclose(self) -> None:
        """End every attempt that is under way, and wait for that."""
        self._closed = True
        self._deadlines.expire_all()
        if self._deadlines:
            await self._idle.wait()

    # --- the steps ----------------------------------------------------------------------------

    def _course(self, request: Request, line: Line) -> _Course:
        try:
            prompt = self._backend.count_tokens(request)
        except PizzaError:
            raise
        except Exception as error:
            raise contained(error, self._backend.name) from error
        longest = request.generation.max_tokens if request.kind == "complete" else 0
        cost = self._price.cost(prompt, longest) if self._price is not None else 0.0
        worst = Spent(calls=1, tokens=prompt + longest, cost=cost)
        line.last = self._gate.ticket(line.last)
        return _Course(line.last, worst)

    async def _attempt(self, request: Request, leave: Leave) -> Reply:
        """One attempt; the leave of one that failed is handed back, `_settle` does the others."""
        self.counters.calls += 1
        self._gate.begin(leave)
        try:
            return await self._timed(request)
        except RateLimitedError as error:
            self.counters.rate_limited += 1
            self._gate.refuse(leave, retry_after_s=error.retry_after_s, rate=error.rate)
            raise
        except AskAgainError:
            raise
        except BackendError as error:
            # A body that came broken, and an answer that came too late, were paid for.
            paid = isinstance(error, MalformedResponseError | BackendTimeoutError)
            silent = isinstance(error, BackendTimeoutError | BackendUnavailableError)
            if isinstance(error, AuthError | QuotaExhaustedError):
                # A key that was rejected is rejected for everybody who waits.
                self._gate.bar(error)
                silent = True
            spent = leave.worst if paid else Spent(calls=1)
            self._gate.finish(leave, spent, answered=not silent)
            raise
        except BaseException:
            # Cancelled, or closed: the server may have charged for it.
            self._gate.finish(leave, leave.worst, answered=False)
            raise

    async def _timed(self, request: Request) -> Reply:
        timeout = self._clock.timeout(None)
        name = self._backend.name
        try:
            async with timeout:
                self._deadlines.add(timeout)
                try:
                    return await self._answer(request)
                finally:
                    self._deadlines.discard(timeout)
                    if self._closed and not self._deadlines:
                        self._idle.set()
        except PizzaError:
            raise
        except Exception as error:
            if self._closed:
                raise SessionClosedError(
                    "the session was closed while this request was under way."
                ) from error
            if timeout.expired():
                raise BackendTimeoutError(
                    f"{name} gave no answer within {self._timeout_s or 0:g} s "
                    "(RetryPolicy.attempt_timeout_s).",
                    backend=name,
                ) from error
            raise contained(error, name) from error

    def _corrected(self, course: _Course, error: AskAgainError, leave: Leave) -> None:
        """What is asked changes: that was no attempt that failed, and there is nothing to wait for.

        Raises:
            PizzaError: That happened too often.
        """
        if error.usage is None:
            self._gate.finish(leave, Spent(calls=1))
        else:
            course.wasted += self._settle(error.usage, leave) or 0.0
        course.attempts -= 1
        course.corrections += 1
        if course.corrections > MAX_CORRECTIONS:
            if isinstance(error.__cause__, PermanentError):
                raise again(error.__cause__) from error.__cause__.__cause__
            raise self._exhausted(course, error) from error
        course.first_at = None
        self.counters.retries += 1

    def _settle(self, usage: Usage, leave: Leave, rate: RateStatus | None = None) -> float | None:
        worst = leave.worst
        cost = None
        if self._price is not None:
            cost = self._price.cost(usage.prompt_tokens, usage.completion_tokens)
            self.counters.cost += cost
        self.counters.prompt_tokens += usage.prompt_tokens
        self.counters.completion_tokens += usage.completion_tokens
        # A server that reports no usage is taken at the worst case.
        used = usage.total_tokens or None
        known = cost if used else worst.cost
        spent = Spent(calls=1, tokens=used or worst.tokens, cost=known or 0.0)
        self._gate.finish(leave, spent, rate=rate, tokens_used=used)
        return cost

    # --- giving up ----------------------------------------------------------------------------

    def _elapsed(self, course: _Course) -> float:
        return 0.0 if course.first_at is None else self._clock.now() - course.first_at

    def _exhausted(self, course: _Course, error: TransientError | None) -> RetriesExhaustedError:
        elapsed = self._elapsed(course)
        policy = self._backoff.policy
        if isinstance(error, RateLimitedError) or error is None:
            what = f"was refused for its rate limit for {elapsed:.0f} s"
        elif isinstance(error, AskAgainError):
            what = f"refused each of {course.corrections} ways to ask; the last time: {error}"
        else:
            what = f"failed {course.attempts} times in {elapsed:.1f} s; the last time: {error}"
        return RetriesExhaustedError(
            f"{self._backend.name} {what}. RetryPolicy allows {policy.attempts} attempts within "
            f"{policy.deadline_s:g} s. What was answered is in the cache: run again to go on.",
            attempts=course.attempts,
            waited_s=elapsed,
        )
