# SPDX-License-Identifier: Apache-2.0
"""`LocalEngine`: all rows in this process, through one session."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from pizza.bulk.engine import Engine
from pizza.bulk.rows import item_of
from pizza.bulk.store import Store
from pizza.bulk.writer import PartWriter
from pizza.errors import PizzaError
from pizza.session import Item, Outcome, Session

if TYPE_CHECKING:
    from pizza._engine.scheduler import SchedulerStatistics
    from pizza.bulk.work import Pending, Work


class LocalEngine(Engine):
    """Explains rows in this process; ``workers`` of them at the same time."""

    async def carry_out(self, work: Work) -> None:
        """See `Engine.carry_out`."""
        settings, directory = work.settings, work.directory
        store = Store(settings.cache or directory.responses)
        writer = PartWriter(
            directory.write,
            rows=settings.part_rows,
            full=settings.keep == "full",
            written=lambda path, places: work.written(path, len(places)),
        )
        opened = {**settings.session, "cache": store, "tally": directory.tally}
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(store.aclose)
            session = await stack.enter_async_context(Session(settings.model, **opened))
            work.opened(session.backend.identity, known_plugins(session))

            async def count() -> SchedulerStatistics:
                return session.statistics

            # Also when interrupted: what is known is written before anything else is closed.
            try:
                async with work.pacing(count):
                    await _explain(work, session, writer)
            finally:
                try:
                    writer.flush()
                except OSError as error:
                    work.no_room(error)


def known_plugins(session: Session) -> list[dict[str, str]]:
    """Name, distribution and version of each plugin that a session uses."""
    return [
        {"name": p.name, "distribution": p.distribution, "version": p.version}
        for p in session.plugins.plugins
        if p.distribution
    ]


async def _explain(work: Work, session: Session, writer: PartWriter) -> None:
    under_way: dict[int, Pending] = {}

    async def items() -> AsyncIterator[Item]:
        async for pending in work.rows():
            under_way[pending.index] = pending
            yield item_of(pending.row)

    async with session.attribute_many(
        items(),
        concurrency=work.settings.rows_at_once(
            in_batches=session.backend.batch_window_s is not None
        ),
        on_event=work.tell,
        **{"skip_failures": True, **work.settings.options},
    ) as outcomes:
        async for outcome in outcomes:
            await _take(outcome, under_way.pop(outcome.index), work, writer)
            if work.hopeless:
                # Leaving the block cancels what is under way.
                return


async def _take(outcome: Outcome, pending: Pending, work: Work, writer: PartWriter) -> None:
    if outcome.attribution is None:
        error = outcome.error or PizzaError("the prompt failed without an error")
        work.failed(pending, error)
        return
    work.succeeded()
    try:
        await writer.add(pending.row, pending.place, outcome.attribution)
    except OSError as error:
        work.no_room(error)
