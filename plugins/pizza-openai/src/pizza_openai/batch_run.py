# SPDX-License-Identifier: Apache-2.0
"""Requests handed over in batches, until each has an answer or is given up.

One round hands over what no known batch holds, waits for all batches, and reads their results.
What was not run (expired, cancelled, not accepted yet) goes into the next round. What was run and
has no answer is left to the scheduler, who keeps the budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass, field

from openai.types import Batch

from pizza.completion import Reply
from pizza.errors import BackendError, RateLimitedError
from pizza_openai.batch_handover import HandOver
from pizza_openai.batch_jobs import Job
from pizza_openai.batch_lines import Again, Ask, read_row
from pizza_openai.batch_service import Service

OPEN = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
_QUEUE_FULL = "token_limit_exceeded"
_QUEUE_WAITS = 5.0
_PATIENCE_S = 24 * 3600.0
_FEWEST = 20
"""While the account's queue is full: waits between attempts, for how long, and the smallest batch
that is tried (thousands of tiny ones would help nobody)."""
_GROWTH = 1.5

_log = logging.getLogger("pizza.openai")

Result = tuple[Ask, Reply | BackendError]


@dataclass(slots=True)
class _Round:
    """What becomes of the requests of one round."""

    asks: dict[str, Ask] = field(default_factory=dict)
    again: list[tuple[Ask, Again]] = field(default_factory=list)
    queue_full: bool = False
    progress: bool = False


class Run:
    """One call of `Backend.answer_batch`.

    Args:
        service: What all batches of the backend have in common.
        handover: Hands over and takes back.
    """

    def __init__(self, service: Service, handover: HandOver) -> None:
        self._service = service
        self._handover = handover
        self._jobs = handover.jobs()
        self._most = service.options.max_requests
        self._stuck_since: float | None = None

    async def results(self, asks: Iterable[Ask]) -> AsyncGenerator[Result, None]:
        """Every request and what came of it, as soon as that is known.

        Closing the generator early cancels the batches that are under way, or leaves them.

        Cost: one request each, at the price of batches; none for those that the journal finds.
        """
        waiting = list(asks)
        try:
            while waiting:
                turn = _Round()
                for result in self._prepare(turn, waiting):
                    yield result
                for ask, error in await self._handover.give(self._jobs, turn.asks, self._most):
                    yield ask, self._final(error)
                async with contextlib.aclosing(self._collect(turn)) as found:
                    async for result in found:
                        yield result
                waiting = []
                for ask, again in turn.again:
                    if again.free or self._another(ask):
                        waiting.append(ask)
                    else:
                        yield ask, self._final(again.why)
                if turn.progress or not turn.queue_full:
                    self._stuck_since = None
                else:
                    await self._service.clock.sleep(_QUEUE_WAITS * self._service.options.poll_max_s)
        except (asyncio.CancelledError, GeneratorExit):
            await self._handover.take_back(self._jobs)
            raise
        finally:
            for job in self._jobs:
                self._jobs.remove(job)

    def _prepare(self, turn: _Round, asks: Iterable[Ask]) -> Iterator[Result]:
        """Settle what is sent; gives those for which there is nothing to send."""
        for ask in asks:
            if (error := self._service.lines.prepare(ask)) is not None:
                yield ask, error
                continue
            first = turn.asks.setdefault(ask.key, ask)
            if first is not ask:  # the same question under two names
                first.positions += ask.positions

    def _another(self, ask: Ask) -> bool:
        ask.attempts += 1
        return ask.attempts < self._service.options.attempts

    # --- collecting ---------------------------------------------------------------------------

    async def _collect(self, turn: _Round) -> AsyncGenerator[Result, None]:
        wait = self._service.options.poll_s
        while self._jobs:
            for job in self._jobs:
                assert job.batch is not None  # noqa: S101 - those without one are not kept
                batch = await self._service.calls.retrieve(job.batch)
                if batch is not None and batch.status in OPEN:
                    continue
                self._jobs.remove(job)  # it has ended: there is nothing to cancel
                async with contextlib.aclosing(self._read(turn, job, batch)) as found:
                    async for result in found:
                        yield result
            if self._jobs:
                await self._service.clock.sleep(wait)
                wait = min(wait * _GROWTH, self._service.options.poll_max_s)

    async def _read(
        self, turn: _Round, job: Job, batch: Batch | None
    ) -> AsyncGenerator[Result, None]:
        """The results of a batch that has ended."""
        if batch is None or batch.status == "failed":
            await self._service.journal.forget(job.tag)
            for result in self._without_results(turn, job, batch):
                yield result
            return
        if batch.status != "completed":
            _log.warning("%s: batch %s is %s.", self._service.name, batch.id, batch.status)
        unreadable = 0
        failed: list[Result] = []
        lost = set(job.keys)  # by this journal, when the results hold no answer
        for file in filter(None, (batch.output_file_id, batch.error_file_id)):
            async with contextlib.aclosing(self._service.calls.rows(file)) as rows:
                async for line in rows:
                    row = read_row(line)
                    if row is None:
                        unreadable += 1
                        continue
                    if row.custom_id not in job.keys:
                        continue  # another run's, or answered a second time
                    job.keys.discard(row.custom_id)
                    ask = turn.asks[row.custom_id]
                    outcome = self._service.lines.outcome(ask, row)
                    if isinstance(outcome, Again):
                        turn.again.append((ask, outcome))
                        continue
                    turn.progress = True
                    if isinstance(outcome, Reply):
                        lost.discard(row.custom_id)
                        yield ask, outcome
                    else:
                        failed.append((ask, self._final(outcome)))
        if unreadable:
            _log.warning(
                "%s: %d lines of the results of batch %s cannot be read.",
                self._service.name,
                unreadable,
                batch.id,
            )
        await self._service.journal.forget_lines(job.tag, lost)
        # Only now: who asks again must not find them in this batch.
        for result in failed:
            yield result
        for key in job.keys:
            missing = self._service.lines.missing(unreadable)
            if isinstance(missing, Again):
                turn.again.append((turn.asks[key], missing))
            else:
                yield turn.asks[key], missing

    def _without_results(self, turn: _Round, job: Job, batch: Batch | None) -> Iterable[Result]:
        asks = [turn.asks[key] for key in job.keys]
        if batch is None:
            gone = Again(why=self._service.lines.unavailable(f"batch {job.batch} no longer exists"))
            turn.again += [(ask, gone) for ask in asks]
            return
        errors = (batch.errors.data if batch.errors else None) or ()
        error = self._service.lines.rejected(errors)
        if any(one.code == _QUEUE_FULL for one in errors):
            # The account's queue is full: smaller batches, after those that are in it.
            turn.queue_full = True
            self._most = max(_FEWEST, min(self._most, len(asks)) // 2)
            now = self._service.clock.time()
            self._stuck_since = self._stuck_since or now
            patient = now - self._stuck_since < _PATIENCE_S
            _log.warning("%s: %s (trying again with smaller batches)", self._service.name, error)
            turn.again += [(ask, Again(why=error, free=patient)) for ask in asks]
            return
        for ask in asks:
            yield ask, self._final(error)

    def _final(self, error: BackendError) -> BackendError:
        # A limit of batches is none of single requests: the scheduler's gate must not close for it.
        if isinstance(error, RateLimitedError):
            return self._service.lines.unavailable(str(error).rstrip("."))
        return error
