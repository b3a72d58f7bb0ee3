# SPDX-License-Identifier: Apache-2.0
"""`Feed`: which row is explained next, when workers may die with theirs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable

from pizza.bulk import Pending, Work

DEATHS = 3
"""A row that was under way when so many workers died is given up."""


class Feed:
    """Hands out the rows of a run, and again those of workers that died.

    A row is settled when it stands in a part, failed, or was dropped because the run stops. Rows
    that were under way when two workers died are suspects: they are explained one at a time, so
    that it is known which of them it is.

    Args:
        work: The run.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._rows = work.rows()
        self._again: deque[Pending] = deque()
        self._suspects: deque[Pending] = deque()
        self._out: set[int] = set()
        self._deaths: dict[int, int] = {}
        self._taking = asyncio.Lock()
        self._reading: asyncio.Task[Pending | None] | None = None
        self._dry = False
        self._changed = asyncio.Event()

    async def take(self) -> Pending | None:
        """The next row, or ``None``: there is none now."""
        async with self._taking:
            if self._work.stopping or self._suspects:
                return None
            pending = self._again.popleft() if self._again else await self._next()
            if pending is None:
                self._dry = True
                return None
            self._out.add(pending.place)
            return pending

    def suspect(self) -> Pending | None:
        """A row that is to be explained alone, or ``None``."""
        if self._work.stopping or not self._suspects:
            return None
        pending = self._suspects.popleft()
        self._out.add(pending.place)
        return pending

    def settled(self, places: Iterable[int]) -> None:
        """Rows are done with."""
        for place in places:
            self._out.discard(place)
            self._deaths.pop(place, None)
        self._notify()

    def returned(self, begun: Iterable[Pending], unwritten: Iterable[Pending]) -> list[Pending]:
        """A worker died: its rows are handed out again.

        Args:
            begun: Those that were under way.
            unwritten: Those whose results it had not written.

        Returns:
            Those that are given up, because workers keep dying of them.
        """
        fatal = []
        for pending in begun:
            deaths = self._deaths[pending.place] = self._deaths.get(pending.place, 0) + 1
            if deaths >= DEATHS:
                fatal.append(pending)
            elif deaths == DEATHS - 1:
                self._suspects.append(pending)
            else:
                self._again.append(pending)
            self._out.discard(pending.place)
        for pending in unwritten:
            self._again.append(pending)
            self._out.discard(pending.place)
        self._notify()
        return fatal

    @property
    def over(self) -> bool:
        """Whether every row is settled, or the run stops and none is out."""
        waiting = not self._dry or self._again or self._suspects
        return not self._out and (self._work.stopping or not waiting)

    async def more(self) -> bool:
        """Wait until there may be a row to take; ``False``: everything is settled."""
        while not self.over:
            ready = not self._dry or self._again or self._suspects
            if ready and not self._work.stopping:
                return True
            await self._changed.wait()
        return False

    async def aclose(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))
        await self._rows.aclose()

    async def _next(self) -> Pending | None:
        # Whoever takes a row may be cancelled, because its worker died: the reading goes on, and
        # the next one has the row. A generator that is cancelled would be at its end.
        if self._reading is None:
            self._reading = asyncio.create_task(_read(self._rows), name="pizza-feed")
        await asyncio.wait((self._reading,))
        found, self._reading = self._reading.result(), None
        return found

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _read(rows: AsyncIterator[Pending]) -> Pending | None:
    return await anext(rows, None)
