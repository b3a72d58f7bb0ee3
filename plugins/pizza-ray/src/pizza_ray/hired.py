# SPDX-License-Identifier: Apache-2.0
"""`Hired`: one worker as the run sees it, and the rows that it has."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Any

from pizza.bulk import Pending
from pizza.errors import PluginError
from pizza.events import RowStarted
from pizza_ray.carried import Opened, Order, Secret, Told, rebuilt
from pizza_ray.feed import Feed
from pizza_ray.wire import LinkError

if TYPE_CHECKING:
    from pizza_ray.crew import Crew

_CLOSE_S = 30.0
"""How long a worker may take to write what it has."""


class WorkerLost(Exception):  # noqa: N818 - it is what happened, not an error of the run
    """A worker, or the node that it was on, is gone."""


class Hired:
    """One worker that lives, and the rows that it has.

    Args:
        crew: Who hired it.
        name: What the coordinator knows it by.
        incarnation: How many of this name died before.
    """

    def __init__(self, crew: Crew, name: str, incarnation: int) -> None:
        self._crew = crew
        self.name = name
        self.incarnation = incarnation
        self._actor = crew.start(name, incarnation)
        self._begun: dict[int, Pending] = {}
        self._unwritten: dict[int, Pending] = {}
        # Rows whose part was told of before they were themselves: answers may overtake each other.
        self._early: set[int] = set()
        self._adopted: set[str] = set()
        self._open = False

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call the actor.

        Raises:
            WorkerLost: It died.
        """
        ray = self._crew.cluster.ray
        try:
            return await getattr(self._actor, method).remote(*arguments)
        except ray.exceptions.RayActorError as error:
            # The rest of what Ray says is about processes, and it has been said on standard error.
            raise WorkerLost(str(error).partition("\n")[0]) from error
        except ray.exceptions.RayTaskError as error:
            raise PluginError(
                f"the worker {self.name} failed in {method}: {error}. This is a bug in pizza-ray."
            ) from error

    async def open(self, order: Order, key: Secret) -> Opened:
        """Open its session, as soon as it has a place.

        Raises:
            PizzaError: It cannot.
            WorkerLost: It died.
        """
        found = await self.call("open", order, key)
        if not isinstance(found, Opened):
            raise rebuilt(found)
        self._open = True
        return found

    async def begin(self) -> None:
        """Have it let in by the coordinator.

        Raises:
            PizzaError: It is not.
            WorkerLost: It died.
        """
        failure = await self.call("begin")
        if failure is not None:
            raise rebuilt(failure)

    def beat(self) -> None:
        """Let it know that the run is there still; a worker that hears nothing ends."""
        if self._open:
            # Nobody waits for the answer: whether it lives is seen by the calls for rows.
            self._actor.beat.remote()

    def kill(self) -> None:
        """End the actor, whatever it does."""
        self._crew.cluster.ray.kill(self._actor)

    async def serve(self, feed: Feed, rows: int) -> None:
        """Explain rows, so many at a time, until every row of the run is settled.

        Raises:
            WorkerLost: It died.
        """
        while True:
            while (suspect := feed.suspect()) is not None:
                await self._explain(suspect)
            await self._lanes(feed, rows)
            self._take_in(await self.call("flush"))
            if self._crew.work.hopeless or not await feed.more():
                return

    async def close(self) -> None:
        """Take in what it has written, and end it.

        Raises:
            WorkerLost: It died before.
        """
        try:
            if self._open:
                async with asyncio.timeout(_CLOSE_S):
                    self._take_in(await self.call("close"))
        except TimeoutError:
            # What it had not written is explained again by the next run, for nothing.
            return
        finally:
            self.kill()

    def rest(self) -> tuple[list[Pending], list[Pending]]:
        """The rows that it has: those under way, and those whose results are not in a part."""
        begun = [p for place, p in self._begun.items() if place not in self._early]
        for _ in range(len(self._begun) - len(begun)):
            self._crew.work.succeeded()
        rest = begun, list(self._unwritten.values())
        self._begun, self._unwritten = {}, {}
        return rest

    async def _lanes(self, feed: Feed, rows: int) -> None:
        async def lane() -> None:
            while not self._crew.work.hopeless and (pending := await feed.take()) is not None:
                await self._explain(pending)

        lost: WorkerLost | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(rows):
                    group.create_task(lane())
        except* WorkerLost as errors:
            lost = next(e for e in leaves(errors) if isinstance(e, WorkerLost))
        if lost is not None:
            raise WorkerLost(str(lost)) from lost

    async def _explain(self, pending: Pending) -> None:
        work = self._crew.work
        self._begun[pending.place] = pending
        work.tell(RowStarted(at=time.time(), id=pending.row.id, index=pending.index))
        told: Told = await self.call("explain", pending)
        if told.failure is not None and told.failure["kind"] == LinkError.__name__:
            # The coordinator thinks it dead, or is dead itself: that is not the row's fault.
            raise WorkerLost(told.failure["message"])
        self._begun.pop(pending.place, None)
        if told.finished is not None:
            if pending.place in self._early:
                self._early.remove(pending.place)
            else:
                self._unwritten[pending.place] = pending
            work.tell(dataclasses.replace(told.finished, index=pending.index))
            work.succeeded()
        elif told.failure is not None:
            self._crew.fail_row(pending, rebuilt(told.failure), told)
        else:
            self._crew.feed.settled((pending.place,))
        self._take_in(told)

    def _take_in(self, told: Told) -> None:
        """Give parts their names; from then on their rows are done."""
        work = self._crew.work
        for part in told.parts:
            if part.file in self._adopted:
                continue
            try:
                path = work.directory.adopt(work.directory.results / part.file)
            except OSError as error:
                work.no_room(error)
                break
            self._adopted.add(part.file)
            for place in part.places:
                if self._unwritten.pop(place, None) is None:
                    self._early.add(place)
            work.written(path, len(part.places))
            self._crew.feed.settled(part.places)
        if told.no_room is not None:
            work.no_room(OSError(*told.no_room))
        if work.hopeless:
            self._crew.give_up()


def leaves(error: BaseException) -> list[BaseException]:
    """The errors inside of nested groups, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]
