# SPDX-License-Identifier: Apache-2.0
"""Requests handed over in batches, until each has an answer or is given up.

One round hands over what no known batch holds, waits for all batches, and reads their results.
What expired, failed for the moment or has to be asked differently goes into the next round.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field

from openai.types import Batch

from pizza.completion import Reply
from pizza.errors import BackendError, BadRequestError, RateLimitedError
from pizza_openai.batch_calls import Calls
from pizza_openai.batch_clock import Clock
from pizza_openai.batch_journal import Entry, Journal
from pizza_openai.batch_lines import Again, Ask, Lines, portions, read_row
from pizza_openai.batch_options import BatchOptions

OPEN = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
_QUEUE_FULL = "token_limit_exceeded"
_QUEUE_WAITS = 5.0
_PATIENCE_S = 24 * 3600.0
_FEWEST = 20
"""While the account's queue is full: waits between attempts, for how long, and the smallest batch
that is tried (thousands of tiny ones would help nobody)."""
_GROWTH = 1.5
_CANCEL_S = 5.0
"""How long a cancelled caller is kept waiting: less than a closing scheduler waits."""

_log = logging.getLogger("pizza_openai")

Result = tuple[Ask, Reply | BackendError]


@dataclass(slots=True, kw_only=True)
class _Job:
    """A batch that is waited for; ``batch`` is ``None`` while it is not known to exist."""

    tag: str
    since: float
    keys: set[str]
    batch: str | None = None


@dataclass(slots=True)
class _Round:
    """What becomes of the requests of one round."""

    asks: dict[str, Ask]
    again: list[tuple[Ask, Again]] = field(default_factory=list)
    queue_full: bool = False
    progress: bool = False


class Run:
    """One call of `Backend.answer_batch`.

    Args:
        name: The backend's name.
        calls: The calls of the two APIs.
        journal: Remembers what was handed over.
        lines: Writes and reads lines.
        options: How it is done.
        clock: Waits.
    """

    def __init__(
        self,
        name: str,
        *,
        calls: Calls,
        journal: Journal,
        lines: Lines,
        options: BatchOptions,
        clock: Clock,
    ) -> None:
        self._name = name
        self._calls = calls
        self._journal = journal
        self._lines = lines
        self._options = options
        self._clock = clock
        self._jobs: dict[str, _Job] = {}
        self._most = options.max_requests
        self._stuck_since: float | None = None
        self._said = False

    async def results(self, asks: Iterable[Ask]) -> AsyncGenerator[Result, None]:
        """Every request and what came of it, as soon as that is known.

        Closing the generator early cancels the batches that are under way, or leaves them.

        Cost: one request each, at the price of batches; none for those that the journal finds.
        """
        waiting = list(asks)
        try:
            while waiting:
                turn = _Round({})
                for ask in waiting:
                    if (error := self._lines.prepare(ask)) is not None:
                        yield ask, error
                        continue
                    first = turn.asks.setdefault(ask.key, ask)
                    if first is not ask:  # the same question under two names
                        first.positions += ask.positions
                await self._hand_over(turn)
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
                    await self._clock.sleep(_QUEUE_WAITS * self._options.poll_max_s)
        except (asyncio.CancelledError, GeneratorExit):
            await self._leave()
            raise

    def _another(self, ask: Ask) -> bool:
        ask.attempts += 1
        return ask.attempts < self._options.attempts

    # --- handing over -------------------------------------------------------------------------

    async def _hand_over(self, turn: _Round) -> None:
        if not turn.asks:
            return
        async with self._journal.alone():
            missing = set(turn.asks)
            for entry in await self._journal.find(turn.asks):
                if (job := await self._found(entry, turn)) is not None:
                    missing -= job.keys
            written = [(a, self._lines.line(a)) for key, a in turn.asks.items() if key in missing]
            for group in portions(
                written, max_requests=self._most, max_bytes=self._options.max_bytes
            ):
                await self._begin(turn, group)

    async def _found(self, entry: Entry, turn: _Round) -> _Job | None:
        """A batch of the journal, brought to where it is known to exist; or forgotten."""
        job = _Job(
            tag=entry.tag,
            since=entry.created,
            keys=set(turn.asks) & entry.keys,
            batch=entry.batch,
        )
        if job.batch is None:
            # The program ended between planning and writing down the batch's id.
            job.batch = await self._calls.find_batch(entry.tag, entry.created)
            if job.batch is None and entry.keys <= set(turn.asks):
                file = entry.file or await self._calls.find_file(entry.tag, entry.created)
                if file is not None:
                    self._jobs[entry.tag] = job
                    # Refused, e.g. because the file has expired: it is uploaded anew.
                    with contextlib.suppress(BadRequestError):
                        job.batch = await self._create(entry.tag, file, entry.created)
            if job.batch is None:
                self._jobs.pop(entry.tag, None)
                await self._journal.forget(entry.tag)
                return None
            await self._journal.created(entry.tag, job.batch)
        self._jobs[entry.tag] = job
        _log.info("%s: %d requests are in batch %s.", self._name, len(job.keys), job.batch)
        return job

    async def _begin(self, turn: _Round, group: list[tuple[Ask, bytes]]) -> None:
        size = sum(len(line) for _, line in group)
        if size > self._options.max_bytes:  # then it is a single line
            ask = turn.asks.pop(group[0][0].key)
            error = BadRequestError(
                f"{self._name}: a request of {size:,} bytes is larger than a batch may be "
                f"({self._options.max_bytes:,} bytes): shorten the prompt.",
                backend=self._name,
            )
            turn.again.append((ask, Again(why=error)))
            ask.attempts = self._options.attempts
            return
        tag = uuid.uuid4().hex
        job = _Job(tag=tag, since=self._clock.time(), keys={ask.key for ask, _ in group})
        await self._journal.plan(tag, [ask.key for ask, _ in group])
        self._jobs[tag] = job
        try:
            file = await self._calls.upload(tag, b"".join(line for _, line in group))
            await self._journal.uploaded(tag, file)
            job.batch = await self._create(tag, file, job.since)
            await self._journal.created(tag, job.batch)
        except BackendError:
            # The next attempt looks for it by its tag.
            self._jobs.pop(tag)
            raise
        _log.log(
            logging.INFO if self._said else logging.WARNING,
            "%s: %d requests are in batch %s, whose answers may take up to 24 hours. %s",
            self._name,
            len(group),
            job.batch,
            "A run that ends before goes on when it is started again."
            if self._options.journal is not None
            else "They are lost if this program ends before (no journal is kept).",
        )
        self._said = True

    async def _create(self, tag: str, file: str, since: float) -> str:
        return await self._calls.create(tag, file, self._lines.path, since)

    # --- collecting ---------------------------------------------------------------------------

    async def _collect(self, turn: _Round) -> AsyncGenerator[Result, None]:
        wait = self._options.poll_s
        while self._jobs:
            for job in list(self._jobs.values()):
                assert job.batch is not None  # noqa: S101 - those without one are not kept
                batch = await self._calls.retrieve(job.batch)
                if batch is not None and batch.status in OPEN:
                    continue
                del self._jobs[job.tag]  # it has ended: there is nothing to cancel
                async with contextlib.aclosing(self._read(turn, job, batch)) as found:
                    async for result in found:
                        yield result
            if self._jobs:
                await self._clock.sleep(wait)
                wait = min(wait * _GROWTH, self._options.poll_max_s)

    async def _read(
        self, turn: _Round, job: _Job, batch: Batch | None
    ) -> AsyncGenerator[Result, None]:
        """The results of a batch that has ended."""
        if batch is None or batch.status == "failed":
            await self._journal.forget(job.tag)
            for result in self._without_results(turn, job, batch):
                yield result
            return
        if batch.status != "completed":
            _log.warning("%s: batch %s is %s.", self._name, batch.id, batch.status)
        unreadable = 0
        lost = set(job.keys)  # by this journal, when the results hold no answer
        for file in filter(None, (batch.output_file_id, batch.error_file_id)):
            async with contextlib.aclosing(self._calls.rows(file)) as rows:
                async for line in rows:
                    row = read_row(line)
                    if row is None:
                        unreadable += 1
                        continue
                    if row.custom_id not in job.keys:
                        continue  # another run's, or answered a second time
                    job.keys.discard(row.custom_id)
                    ask = turn.asks[row.custom_id]
                    outcome = self._lines.outcome(ask, row)
                    if isinstance(outcome, Again):
                        turn.again.append((ask, outcome))
                        continue
                    turn.progress = True
                    if isinstance(outcome, Reply):
                        lost.discard(row.custom_id)
                    yield ask, outcome
        if unreadable:
            _log.warning(
                "%s: %d lines of the results of batch %s cannot be read.",
                self._name,
                unreadable,
                batch.id,
            )
        await self._journal.forget_lines(job.tag, lost)
        for key in job.keys:
            missing = self._lines.missing(unreadable)
            if isinstance(missing, Again):
                turn.again.append((turn.asks[key], missing))
            else:
                yield turn.asks[key], missing

    def _without_results(self, turn: _Round, job: _Job, batch: Batch | None) -> Iterable[Result]:
        asks = [turn.asks[key] for key in job.keys]
        if batch is None:
            gone = Again(why=self._lines.unavailable(f"batch {job.batch} no longer exists"))
            turn.again += [(ask, gone) for ask in asks]
            return
        errors = (batch.errors.data if batch.errors else None) or ()
        error = self._lines.rejected(errors)
        if any(one.code == _QUEUE_FULL for one in errors):
            # The account's queue is full: smaller batches, after those that are in it.
            turn.queue_full = True
            self._most = max(_FEWEST, min(self._most, len(asks)) // 2)
            now = self._clock.time()
            self._stuck_since = self._stuck_since or now
            patient = now - self._stuck_since < _PATIENCE_S
            _log.warning("%s: %s (trying again with smaller batches)", self._name, error)
            turn.again += [(ask, Again(why=error, free=patient)) for ask in asks]
            return
        for ask in asks:
            yield ask, self._final(error)

    def _final(self, error: BackendError) -> BackendError:
        # A limit of batches is none of single requests: the scheduler's gate must not close for it.
        if isinstance(error, RateLimitedError):
            return self._lines.unavailable(str(error).rstrip("."))
        return error

    # --- leaving ------------------------------------------------------------------------------

    async def _leave(self) -> None:
        """Cancel what is under way, and say so."""
        if self._options.on_cancel == "keep":
            for job in self._jobs.values():
                _log.warning("%s: batch %s goes on without us.", self._name, job.batch)
            return
        try:
            async with asyncio.timeout(_CANCEL_S):
                for job in self._jobs.values():
                    await self._cancel(job)
        except TimeoutError:
            left = ", ".join(job.batch or job.tag for job in self._jobs.values())
            _log.warning("%s: the server did not say in time that it cancels %s.", self._name, left)

    async def _cancel(self, job: _Job) -> None:
        try:
            batch = job.batch or await self._calls.find_batch(job.tag, job.since)
            if batch is None:
                return
            said = await self._calls.cancel(batch)
        except BackendError as error:
            _log.warning("%s: batch %s was not cancelled: %s", self._name, job.batch, error)
            return
        done = said.request_counts.completed if said.request_counts else 0
        _log.warning(
            "%s: batch %s is cancelled, with %d of its requests answered. These are paid for, and "
            "are read when the run is started again.",
            self._name,
            batch,
            done,
        )
