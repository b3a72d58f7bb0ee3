# SPDX-License-Identifier: Apache-2.0
"""`Crew`: the workers of a run as the run sees them; those that die are replaced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pizza.bulk import Pending, Work
from pizza.errors import BackendUnavailableError, ConfigError, PizzaError, PluginError
from pizza.events import RowFailed
from pizza_ray.carried import Opened, Order, Secret, Told
from pizza_ray.cluster import Cluster
from pizza_ray.feed import DEATHS, Feed
from pizza_ray.hired import Hired, WorkerLost, leaves
from pizza_ray.hosted import Hosted
from pizza_ray.worker import Worker

_STILLBORN = 3
"""Workers in a row that may die before they can explain anything."""
_BEAT_S = 5.0


class Crew:
    """The workers of one run.

    Args:
        work: The run.
        cluster: Where they are.
        order: What they need to know.
        key: The key, or nothing.
        hosted: The coordinator that they ask for leave.
        opened: Called with what the first worker found, before any begins.
        size: How many there are to be.
        rows: Rows that each works on at the same time.
        needs: Resources of each, as options of the actor.
        patience_s: How long the run waits for a worker when it has none, seconds.
    """

    def __init__(
        self,
        work: Work,
        cluster: Cluster,
        *,
        order: Order,
        key: Secret,
        hosted: Hosted,
        opened: Callable[[Opened], Awaitable[None]],
        size: int,
        rows: int,
        needs: Mapping[str, Any],
        patience_s: float,
    ) -> None:
        self.work = work
        self.cluster = cluster
        self.feed = Feed(work)
        self._order = order
        self._key = key
        self._hosted = hosted
        self._opened = opened
        self._size = size
        self._rows = rows
        self._needs = needs
        self._patience_s = patience_s
        self._alive: set[Hired] = set()
        self._posts: list[asyncio.Task[None]] = []
        self._serving: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._first = asyncio.Lock()
        self._found: Opened | None = None

    async def run(self) -> None:
        """Explain all rows.

        Raises:
            PizzaError: The run cannot go on.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._posts = [group.create_task(self._keep(n)) for n in range(self._size)]
                beating = group.create_task(self._beat())
                group.create_task(self._until_over())
                await asyncio.wait(self._posts)
                self._over.set()
                beating.cancel()
        except BaseExceptionGroup as errors:
            found = list(leaves(errors))
            error = next((e for e in found if isinstance(e, PizzaError)), found[0])
            raise error from error.__cause__

    async def close(self) -> None:
        """End all workers, and take in what they have written."""
        async with asyncio.TaskGroup() as group:
            for hired in self._alive:
                group.create_task(_quietly(hired.close()))
        self._alive.clear()
        await self.feed.aclose()
        # Parts of workers that died before anybody knew of them.
        for left in self.work.directory.results.glob(".part-*.tmp"):
            left.unlink(missing_ok=True)

    def start(self, name: str, incarnation: int) -> Any:
        """A new actor; it may have to wait for a place."""
        kind = self.cluster.ray.remote(Worker)
        options = {
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": self._rows + 8,
            "scheduling_strategy": "SPREAD",
            **self._needs,
        }
        return kind.options(**options).remote(name, incarnation, self._hosted.actor)

    def fail_row(self, pending: Pending, error: PizzaError, told: Told | None = None) -> None:
        """A row has no result."""
        self.work.tell(
            RowFailed(
                at=told.at if told else time.time(),
                id=pending.row.id,
                index=pending.index,
                error=error,
                seconds=told.seconds if told else 0.0,
            )
        )
        self.work.failed(pending, error)
        self.feed.settled((pending.place,))

    def give_up(self) -> None:
        """It is hopeless: what is under way ends with its workers."""
        self._over.set()
        for post in self._posts:
            post.cancel()

    async def _beat(self) -> None:
        while True:
            for hired in self._alive:
                hired.beat()
            await asyncio.sleep(_BEAT_S)

    async def _until_over(self) -> None:
        """Posts that still wait for a place are not needed when another one has seen the end."""
        await self._over.wait()
        for post in self._posts:
            if post not in self._serving:
                post.cancel()

    async def _keep(self, number: int) -> None:
        """See to it that there is a worker with this number until all is done."""
        name, incarnation, stillborn = f"w{number}", 0, 0
        while not self.work.stopping:
            hired = Hired(self, name, incarnation)
            self._alive.add(hired)
            try:
                await self._ready(hired)
                stillborn = -1
                await self._serve(hired)
                break
            except WorkerLost as error:
                self._alive.discard(hired)
                await self._bury(hired, error)
                incarnation += 1
                stillborn += 1
                if stillborn >= _STILLBORN:
                    raise BackendUnavailableError(
                        f"workers die before they can explain anything: {error}"
                    ) from error
        self._over.set()

    async def _serve(self, hired: Hired) -> None:
        post = asyncio.current_task()
        assert post is not None  # noqa: S101 - this is one
        self._serving.add(post)
        try:
            await hired.serve(self.feed, self._rows)
        finally:
            self._serving.discard(post)

    async def _ready(self, hired: Hired) -> None:
        placed = asyncio.create_task(hired.call("here"))
        try:
            while not placed.done():
                await asyncio.wait((placed,), timeout=self._patience_s)
                if not placed.done() and not self._serving:
                    raise self._nobody()
            placed.result()
        finally:
            placed.cancel()
        # Opening may take long: some workers load a model.
        found = await hired.open(self._order, self._key)
        async with self._first:
            if self._found is None:
                await self._opened(found)
                self._found = found
            elif found.identity != self._found.identity:
                raise ConfigError(
                    f"{found.identity} answers one worker, and {self._found.identity} another: "
                    "results of both in one table would not be comparable."
                )
        await hired.begin()

    async def _bury(self, hired: Hired, error: WorkerLost) -> None:
        hired.kill()
        await self._hosted.lost(hired.name, hired.incarnation)
        begun, unwritten = hired.rest()
        self.work.lost(len(unwritten))
        for pending in self.feed.returned(begun, unwritten):
            failure = PluginError(
                f"{DEATHS} workers died while they explained this prompt; the last time: {error}"
            )
            self.fail_row(pending, failure)

    def _nobody(self) -> ConfigError:
        there = f"{self.cluster.cpus:g} CPUs and {self.cluster.gpus:g} GPUs"
        return ConfigError(
            f"there is no worker: none found a place within {self._patience_s:g} s. Each needs "
            f"{dict(self._needs)}; the cluster had {there} when the run began. Free resources, or "
            "add nodes, and run again: it goes on from here."
        )


async def _quietly(closing: Awaitable[None]) -> None:
    try:
        await closing
    except (WorkerLost, PizzaError):
        # What it had not written is explained again by the next run, for nothing.
        return
