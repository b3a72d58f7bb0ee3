# SPDX-License-Identifier: Apache-2.0
"""One run: every row of an input that has no result yet, until it is over or must stop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pizza.bulk.census import Census, contains, take_census
from pizza.bulk.configuration import configuration
from pizza.bulk.directory import RunDirectory
from pizza.bulk.progress import Standing
from pizza.bulk.rows import Row, id_hash
from pizza.bulk.settings import Settings, Summary
from pizza.bulk.store import Store
from pizza.bulk.troubles import Troubles, bad_row
from pizza.bulk.writer import PartWriter
from pizza.errors import PizzaError
from pizza.events import Event, Pace, PartWritten, RowStarted, RunEnded, RunOpened
from pizza.limits import Budget
from pizza.session import Item, Outcome, Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

_READ = 64
_LOG_PACE = 60
_TICK_S = 1.0


class Runner:
    """Makes one run. `go` is called once.

    Args:
        settings: How.
        listen: Called with every event, on the event loop.
    """

    def __init__(self, settings: Settings, listen: Callable[[Event], None]) -> None:
        self._settings = settings
        self._listen = listen
        self._under_way: dict[int, tuple[Row, int]] = {}
        self._ticks = 0

    async def go(self) -> Summary:
        """Run until there is nothing left to do or a reason to stop.

        Raises:
            ConfigError: Something does not fit; nothing was sent.
            ResultFormatError: The directory is damaged.
        """
        settings, began = self._settings, time.monotonic()
        with RunDirectory(settings.directory, create=settings.resume is not True) as directory:
            census = await asyncio.to_thread(
                take_census, settings.source, skip_faults=settings.skip_bad_rows
            )
            directory.settle(self._configuration(census))
            done = await asyncio.to_thread(directory.done)
            given_up = self._sorted_out(directory, census, done)
            self._directory = directory
            budget = settings.session.get("budget") or Budget()
            self._troubles = Troubles(directory, settings.circuit, budget)
            self._skipped = np.union1d(done, given_up)
            self._standing = Standing(
                total=census.rows,
                done=int(np.isin(census.hashes, done).sum()),
                failed=len(given_up),
            )
            self._tell(
                RunOpened(
                    at=time.time(),
                    rows=census.rows,
                    done=self._standing.done,
                    failed=self._standing.failed,
                    spent=directory.tally.spent,
                )
            )
            try:
                if self._standing.done + self._standing.failed < census.rows:
                    await self._send()
            except BaseException as error:
                self._end("error" if isinstance(error, Exception) else "interrupted", str(error))
                raise
            return self._summary(began)

    # --- before -------------------------------------------------------------------------------

    def _configuration(self, census: Census) -> dict[str, Any]:
        settings = self._settings
        return configuration(
            settings.source,
            census,
            settings.model,
            base_url=settings.session.get("base_url"),
            backend_options=settings.session.get("backend_options"),
            options=settings.options,
            keep=settings.keep,
        )

    def _sorted_out(
        self, directory: RunDirectory, census: Census, done: NDArray[np.uint64]
    ) -> NDArray[np.uint64]:
        """Keep the failures that stand; the others are tried again. Returns 64 bits per id."""
        kept: list[dict[str, Any]] = []
        for failure in directory.failures():
            name = failure.get("id")
            if name is None or contains(done, id_hash(name)):
                continue
            if not (failure.get("again") or self._settings.retry_failed):
                kept.append(failure)
        hashes = sorted(id_hash(failure["id"]) for failure in kept)
        bad = [bad_row(fault) for fault in census.faults]
        directory.keep_failures([*bad, *kept])
        return np.array(hashes, dtype=np.uint64)

    # --- sending ------------------------------------------------------------------------------

    async def _send(self) -> None:
        settings, directory = self._settings, self._directory
        store = Store(settings.cache or directory.responses)
        writer = PartWriter(
            directory,
            rows=settings.part_rows,
            full=settings.keep == "full",
            written=lambda path, rows: self._tell(
                PartWritten(at=time.time(), name=path.name, rows=rows)
            ),
        )
        opened = {**settings.session, "cache": store, "tally": directory.tally}
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(store.aclose)
            session = await stack.enter_async_context(Session(settings.model, **opened))
            self._note_model(session)
            # Also when interrupted: what is known is written before anything else is closed.
            try:
                async with self._ticking(session):
                    await self._attribute(session, writer)
            finally:
                self._flush(writer)

    async def _attribute(self, session: Session, writer: PartWriter) -> None:
        settings = self._settings
        async with session.attribute_many(
            self._items(),
            concurrency=settings.workers,
            on_event=self._tell,
            **{"skip_failures": True, **settings.options},
        ) as outcomes:
            async for outcome in outcomes:
                row, place = self._under_way.pop(outcome.index)
                try:
                    await self._take(outcome, row, place, writer)
                except OSError as error:
                    self._troubles.no_room(error)
                if self._troubles.hopeless:
                    # Leaving the block cancels what is under way.
                    return
        try:
            self._troubles.note()
        except OSError as error:
            self._troubles.no_room(error)

    async def _take(self, outcome: Outcome, row: Row, place: int, writer: PartWriter) -> None:
        if outcome.attribution is None:
            error = outcome.error or PizzaError("the prompt failed without an error")
            self._standing.failed += self._troubles.failed(row, place, error)
            return
        self._troubles.succeeded()
        self._standing.done += 1
        await writer.add(row, place, outcome.attribution)

    async def _items(self) -> AsyncIterator[Item]:
        """Rows without a result, read in pieces on a thread, numbered as they are given."""
        rows = self._pending()
        number = 0
        while self._troubles.reason == "finished":
            piece = await asyncio.to_thread(lambda: list(itertools.islice(rows, _READ)))
            if not piece:
                return
            for row, place in piece:
                if self._troubles.reason != "finished":
                    return
                self._under_way[number] = (row, place)
                number += 1
                own = {} if row.target is None else {"target": row.target}
                yield Item(prompt=row.prompt, id=row.id, options=own)

    def _pending(self) -> Iterator[tuple[Row, int]]:
        place = 0
        for row in self._settings.source.rows():
            if isinstance(row, Row):
                if not contains(self._skipped, row.hash):
                    yield row, place
                place += 1

    def _flush(self, writer: PartWriter) -> None:
        try:
            writer.flush()
        except OSError as error:
            self._troubles.no_room(error)

    def _note_model(self, session: Session) -> None:
        known = [
            {"name": p.name, "distribution": p.distribution, "version": p.version}
            for p in session.plugins.plugins
            if p.distribution
        ]
        changed = self._directory.note_model(session.backend.identity, known)
        if changed:
            warnings.warn(
                f"results in {self._directory.path} were begun with other versions: "
                f"{', '.join(changed)}.",
                stacklevel=2,
            )

    # --- telling ------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _ticking(self, session: Session) -> AsyncIterator[None]:
        async def tick() -> None:
            while True:
                self._tell(self._standing.pace(session, self._directory.tally.spent))
                await asyncio.sleep(_TICK_S)

        task = asyncio.create_task(tick(), name="pizza-pace")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))

    def _tell(self, event: Event) -> None:
        self._listen(event)
        if isinstance(event, Pace):
            self._ticks += 1
            if self._ticks % _LOG_PACE:
                return
        if isinstance(event, RowStarted):
            return
        try:
            self._directory.log(event.to_dict())
        except OSError as error:
            self._troubles.no_room(error)

    def _end(self, reason: str, message: str = "") -> RunEnded:
        standing = self._standing
        event = RunEnded(
            at=time.time(),
            reason=reason,
            message=message,
            done=standing.done,
            failed=standing.failed,
            total=standing.total,
            spent=self._directory.tally.spent,
        )
        self._tell(event)
        return event

    def _summary(self, began: float) -> Summary:
        if self._troubles.reason == "storage":
            # Results that were computed and could not be written are computed again.
            self._standing.done = len(self._directory.done())
        ended = self._end(self._troubles.reason, str(self._troubles.error or ""))
        return Summary(
            reason=ended.reason,
            message=ended.message,
            rows=ended.total,
            done=ended.done,
            failed=ended.failed,
            spent=ended.spent,
            seconds=time.monotonic() - began,
            directory=self._directory.path,
            error=self._troubles.error,
        )
