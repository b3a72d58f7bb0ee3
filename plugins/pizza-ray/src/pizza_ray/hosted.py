# SPDX-License-Identifier: Apache-2.0
"""`Hosted`: the coordinator of a run, as the run sees it."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any

from pizza.bulk import Work
from pizza.errors import PizzaError
from pizza.limits import Budget, Limits, Price
from pizza_ray.carried import rebuilt
from pizza_ray.cluster import Cluster
from pizza_ray.host import Host

_CLOSE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What a run has sent and found so far; see `pizza.bulk.progress.Counts`."""

    calls: int = 0
    cache_hits: int = 0
    in_flight: int = 0


class Hosted:
    """Starts the coordinator's actor on this node, and ends it.

    The run's tally is lent to it as long as it is open.

    Attributes:
        actor: The actor, for workers.

    Args:
        work: The run.
        cluster: Where it is.
    """

    def __init__(self, work: Work, cluster: Cluster) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._work = work
        self._ray = cluster.ray
        directory = work.directory
        self._files = tuple(
            str(path.resolve())
            for path in (directory.path / "spent", work.settings.cache or directory.responses)
        )
        self._last = Counted()
        self._lent = False
        kind = cluster.ray.remote(Host)
        # It takes no room, and must be where the run directory was opened: one machine's processes
        # share the tally through memory. A run that is started again may find the old name.
        self.actor = kind.options(
            name=f"pizza-run-{uuid.uuid4().hex[:12]}",
            num_cpus=0,
            max_restarts=0,
            max_concurrency=10_000,
            scheduling_strategy=NodeAffinitySchedulingStrategy(cluster.node, soft=False),
        ).remote()

    async def open(self, *, limits: Limits, budget: Budget, price: Price | None, name: str) -> None:
        """Begin to give leave.

        Args:
            limits: Over all workers together.
            budget: Likewise.
            price: The backend's.
            name: The backend's.

        Raises:
            ConfigError: Caps that cannot be kept.
            PizzaError: It died.
        """
        self._work.directory.tally.lend()
        self._lent = True
        failure = await self._call(
            "open",
            tally=self._files[0],
            store=self._files[1],
            limits=limits,
            budget=budget,
            price=price,
            backend=name,
        )
        if failure is not None:
            raise rebuilt(failure)

    async def lost(self, worker: str, incarnation: int) -> None:
        """A worker died: what it held is settled.

        Raises:
            PizzaError: The coordinator is gone, too.
        """
        if self._lent:
            await self._call("lost", worker, incarnation)

    async def count(self) -> Counted:
        """What was sent and found so far; the last that is known when nobody answers."""
        if self._lent:
            try:
                standing, hits = await self._call("progress")
            except PizzaError:
                return self._last
            self._last = Counted(calls=standing.sent, cache_hits=hits, in_flight=standing.in_flight)
        return self._last

    async def close(self) -> None:
        """End the actor; the tally is the run's own again."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._call("close")
        except (PizzaError, TimeoutError):
            # Answers that it could not store in time are paid for again: nothing else is lost.
            pass
        finally:
            self._ray.kill(self.actor)
            if self._lent:
                self._lent = False
                await asyncio.to_thread(self._work.directory.tally.take_back)

    async def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        try:
            return await getattr(self.actor, method).remote(*arguments, **named)
        except self._ray.exceptions.RayError as error:
            raise PizzaError(
                f"the coordinator of the run is gone: {_first_line(error)} Run the same command "
                "again: it goes on from here and pays for nothing twice."
            ) from error


def _first_line(error: Exception) -> str:
    # The rest is about processes, and Ray has said it on standard error.
    return str(error).partition("\n")[0]
