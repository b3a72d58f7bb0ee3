# SPDX-License-Identifier: Apache-2.0
"""Requests handed over as batches, found again in batches of earlier runs, and taken back."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence

from pizza.errors import BackendError, BadRequestError
from pizza_openai.batch_jobs import Job, Jobs
from pizza_openai.batch_journal import Entry
from pizza_openai.batch_lines import Ask, portions
from pizza_openai.batch_service import Service

_CANCEL_S = 5.0
"""How long a cancelled caller is kept waiting: less than a closing scheduler waits."""

_log = logging.getLogger("pizza.openai")


class HandOver:
    """What one backend hands over, and takes back.

    Args:
        service: What all batches of the backend have in common.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._waiting: Counter[str] = Counter()
        self._said = False

    def jobs(self) -> Jobs:
        """For the batches of one call."""
        return Jobs(self._waiting)

    async def give(
        self, jobs: Jobs, asks: Mapping[str, Ask], most: int
    ) -> list[tuple[Ask, BackendError]]:
        """See to it that a batch holds each request.

        Args:
            jobs: Takes the batches that hold them.
            asks: The requests by their keys.
            most: Most requests of a new batch.

        Returns:
            Requests that could not be handed over, and why. The others are in batches, and are
            waited for: they are paid for.

        Cost: one request for each that no batch holds, at the price of batches.
        """
        failed: list[tuple[Ask, BackendError]] = []
        refused: BackendError | None = None
        async with self._service.journal.alone():
            missing = set(asks)
            for entry in await self._service.journal.find(asks):
                if (job := await self._found(jobs, entry, asks)) is not None:
                    missing -= job.keys
            written = [
                (ask, self._service.lines.line(ask)) for key, ask in asks.items() if key in missing
            ]
            for group in portions(
                written, max_requests=most, max_bytes=self._service.options.max_bytes
            ):
                error = self._too_large(group) or refused
                if error is None:
                    try:
                        await self._begin(jobs, group)
                    except BackendError as reason:
                        error = reason
                        # A server that is not there, or refuses the key, is not tried once more.
                        refused = None if isinstance(reason, BadRequestError) else reason
                if error is not None:
                    failed += [(ask, error) for ask, _ in group]
        return failed

    async def take_back(self, jobs: Jobs) -> None:
        """Cancel batches that are under way, and say so; or leave them, where that is wished."""
        ours = [job for job in jobs if jobs.only_ours(job)]
        for job in jobs:
            jobs.remove(job)
        if self._service.options.on_cancel == "keep":
            for job in ours:
                _log.warning(
                    "%s: batch %s goes on without us.", self._service.name, job.batch or job.tag
                )
            return
        try:
            async with asyncio.timeout(_CANCEL_S):
                while ours:
                    await self._cancel(ours[0])
                    del ours[0]
        except TimeoutError:
            left = ", ".join(job.batch or job.tag for job in ours)
            _log.warning(
                "%s: the server did not say in time that it cancels %s.", self._service.name, left
            )

    # --- handing over -------------------------------------------------------------------------

    async def _found(self, jobs: Jobs, entry: Entry, asks: Mapping[str, Ask]) -> Job | None:
        """A batch of the journal, brought to where it is known to exist; or forgotten."""
        job = Job(
            tag=entry.tag, since=entry.created, keys=set(asks) & entry.keys, batch=entry.batch
        )
        if job.batch is None:
            # The program ended between planning and writing down the batch's id.
            job.batch = await self._service.calls.find_batch(entry.tag, entry.created)
            if job.batch is None and entry.keys <= set(asks):
                job.batch = await self._from_file(jobs, job, entry)
            if job.batch is None:
                await self._service.journal.forget(entry.tag)
                return None
            await self._service.journal.created(entry.tag, job.batch)
        jobs.add(job)
        _log.info("%s: %s in batch %s.", self._service.name, _are(len(job.keys)), job.batch)
        return job

    async def _from_file(self, jobs: Jobs, job: Job, entry: Entry) -> str | None:
        """A new batch of the file that was uploaded, if it is there."""
        file = entry.file or await self._service.calls.find_file(entry.tag, entry.created)
        if file is None:
            return None
        jobs.add(job)  # whoever is cancelled from here on may have to cancel the batch
        try:
            return await self._create(entry.tag, file, entry.created)
        except BackendError as error:
            jobs.remove(job)
            if isinstance(error, BadRequestError):  # e.g. it has expired: it is uploaded anew
                return None
            raise

    def _too_large(self, group: Sequence[tuple[Ask, bytes]]) -> BackendError | None:
        size = sum(len(line) for _, line in group)
        if size <= self._service.options.max_bytes:
            return None
        # Then it is a single line.
        return BadRequestError(
            f"{self._service.name}: a request of {size:,} bytes is larger than a batch may be "
            f"({self._service.options.max_bytes:,} bytes): shorten the prompt.",
            backend=self._service.name,
        )

    async def _begin(self, jobs: Jobs, group: Sequence[tuple[Ask, bytes]]) -> None:
        """Make a batch.

        Raises:
            BackendError: There is none, or nobody knows; the next attempt looks for its tag.
        """
        tag = uuid.uuid4().hex
        job = Job(tag=tag, since=self._service.clock.time(), keys={ask.key for ask, _ in group})
        await self._service.journal.plan(tag, [ask.key for ask, _ in group])
        jobs.add(job)
        try:
            file = await self._service.calls.upload(tag, b"".join(line for _, line in group))
            await self._service.journal.uploaded(tag, file)
            job.batch = await self._create(tag, file, job.since)
            await self._service.journal.created(tag, job.batch)
        except Exception:
            jobs.remove(job)
            raise
        self._say(job)

    async def _create(self, tag: str, file: str, since: float) -> str:
        return await self._service.calls.create(tag, file, self._service.lines.path, since)

    def _say(self, job: Job) -> None:
        if self._said:
            _log.warning("%s: %s in batch %s.", self._service.name, _are(len(job.keys)), job.batch)
            return
        self._said = True
        _log.warning(
            "%s: %s in batch %s. Answers may take up to 24 hours. %s",
            self._service.name,
            _are(len(job.keys)),
            job.batch,
            "A run that ends before goes on when it is started again."
            if self._service.options.journal is not None
            else "They are lost if this program ends before (no journal is kept).",
        )

    # --- taking back --------------------------------------------------------------------------

    async def _cancel(self, job: Job) -> None:
        batch = job.batch
        try:
            batch = batch or await self._service.calls.find_batch(job.tag, job.since)
            if batch is None:
                return
            said = await self._service.calls.cancel(batch)
        except BackendError as error:
            _log.warning(
                "%s: batch %s was not cancelled: %s", self._service.name, batch or job.tag, error
            )
            return
        done = said.request_counts.completed if said.request_counts else 0
        _log.warning(
            "%s: batch %s is cancelled; %s.",
            self._service.name,
            batch,
            "none of its requests was answered" if not done else self._what_remains(done),
        )

    def _what_remains(self, done: int) -> str:
        if self._service.options.journal is None:
            return f"{done:,} of its requests were answered and are paid for: no journal keeps them"
        return (
            f"{done:,} of its requests were answered and are paid for: they are read when the run "
            "is started again"
        )


def _are(n: int) -> str:
    return "1 request is" if n == 1 else f"{n:,} requests are"
