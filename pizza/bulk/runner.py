# SPDX-License-Identifier: Apache-2.0
"""One run: every row of an input that has no result yet, until it is over or must stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pizza import _observe as observe
from pizza.bulk.census import Census, contains, take_census
from pizza.bulk.configuration import configuration
from pizza.bulk.directory import RunDirectory
from pizza.bulk.engine import Engine
from pizza.bulk.progress import Standing
from pizza.bulk.rows import id_hash
from pizza.bulk.settings import Settings, Summary
from pizza.bulk.troubles import Troubles, bad_row
from pizza.bulk.work import Work
from pizza.events import Event, RunEnded, RunOpened
from pizza.limits import Budget

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Runner:
    """Makes one run. `go` is called once.

    Args:
        settings: How.
        engine: What explains the rows.
        listen: Called with every event, on the event loop.
    """

    def __init__(self, settings: Settings, engine: Engine, listen: Callable[[Event], None]) -> None:
        self._settings = settings
        self._engine = engine
        self._listen = listen

    async def go(self) -> Summary:
        """Run until there is nothing left to do or a reason to stop.

        Raises:
            ConfigError: Something does not fit; nothing was sent.
            ResultFormatError: The directory is damaged.
        """
        settings, began = self._settings, time.monotonic()
        self._engine.check(settings)
        with RunDirectory(settings.directory, create=settings.resume is not True) as directory:
            census = await asyncio.to_thread(
                take_census, settings.source, skip_faults=settings.skip_bad_rows
            )
            directory.settle(self._configuration(census))
            done = await asyncio.to_thread(directory.done)
            given_up = self._sorted_out(directory, census, done)
            budget = settings.session.get("budget") or Budget()
            standing = Standing(
                total=census.rows,
                done=int(np.isin(census.hashes, done).sum()),
                failed=len(given_up),
            )
            work = Work(
                settings,
                directory,
                standing=standing,
                troubles=Troubles(directory, settings.circuit, budget),
                skipped=np.union1d(done, given_up),
                listen=self._listen,
            )
            work.tell(
                RunOpened(
                    at=time.time(),
                    rows=census.rows,
                    done=standing.done,
                    failed=standing.failed,
                    spent=directory.tally.spent,
                )
            )
            name = directory.manifest["id"]
            with observe.run(name, done=standing.done, total=census.rows) as told:
                try:
                    if standing.done + standing.failed < census.rows:
                        await self._engine.carry_out(work)
                        work.over()
                except BaseException as error:
                    reason = "error" if isinstance(error, Exception) else "interrupted"
                    told.ended(_end(work, reason, error))
                    raise
                ended = _ended(work)
                told.ended(ended)
            return _summary(work, ended, time.monotonic() - began)

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


def _end(work: Work, reason: str, error: BaseException | None) -> RunEnded:
    standing = work.standing
    event = RunEnded(
        at=time.time(),
        reason=reason,
        message=str(error or ""),
        kind="" if error is None else type(error).__name__,
        done=standing.done,
        failed=standing.failed,
        total=standing.total,
        spent=work.directory.tally.spent,
    )
    work.tell(event)
    return event


def _ended(work: Work) -> RunEnded:
    troubles = work.troubles
    if troubles.reason == "storage":
        # Results that were computed and could not be written are computed again.
        work.standing.done = len(work.directory.done())
    return _end(work, troubles.reason, troubles.error)


def _summary(work: Work, ended: RunEnded, seconds: float) -> Summary:
    return Summary(
        reason=ended.reason,
        message=ended.message,
        rows=ended.total,
        done=ended.done,
        failed=ended.failed,
        spent=ended.spent,
        seconds=seconds,
        directory=work.directory.path,
        error=work.troubles.error,
    )
