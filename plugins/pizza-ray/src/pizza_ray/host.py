# SPDX-License-Identifier: Apache-2.0
"""`Host`: the actor in which a run's coordinator lives, with the store and the tally."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pizza.bulk.store import Store
from pizza.bulk.tally import TallyFile
from pizza.limits import Budget, Limits, Price
from pizza_ray.carried import described
from pizza_ray.coordinator import Coordinator, Standing
from pizza_ray.watch import Watch

_SILENT_S = 20.0
"""A run asks for progress every second; what holds it up for longer than this has ended it."""


class Host:
    """One per run, on the node where the run directory was opened; dies with the run.

    It holds the lock of the tally, so that no other run begins in the directory while it is there.
    Ray ends it with its run, where it notices; when it hears nothing it ends by itself.
    """

    def __init__(self) -> None:
        self._coordinator: Coordinator | None = None
        self._tally: TallyFile | None = None
        self._hits = 0
        self._watch = Watch(_SILENT_S)

    async def open(
        self,
        *,
        tally: str,
        store: str,
        limits: Limits,
        budget: Budget,
        price: Price | None,
        backend: str,
    ) -> dict[str, Any] | None:
        """Begin. Returns the error, as `described`, or ``None``.

        Args:
            tally: The file of what was spent.
            store: The file of answers.
            limits: Over all workers together.
            budget: Likewise.
            price: The backend's.
            backend: Its name.
        """
        try:
            self._tally = TallyFile(Path(tally))
            self._coordinator = Coordinator(
                limits,
                budget=budget,
                price=price,
                backend=backend,
                tally=self._tally,
                store=Store(Path(store)),
            )
        except Exception as error:
            await self.close()
            return described(error)
        self._watch.heard()
        return None

    async def close(self) -> None:
        """Give everything back: then the tally is the run's own again."""
        self._watch.stop()
        if self._coordinator is not None:
            await self._coordinator.aclose()
            self._coordinator = None
        if self._tally is not None:
            self._tally.close()
            self._tally = None

    async def progress(self) -> tuple[Standing, int]:
        """Where the coordinator stands, and how many answers the store had."""
        self._watch.heard()
        return await self._open().standing(), self._hits

    # --- the coordinator's calls --------------------------------------------------------------

    async def register(self, worker: str, incarnation: int) -> Any:
        """See `Coordinator.register`."""
        return await self._open().register(worker, incarnation)

    async def exchange(self, worker: str, incarnation: int, batch: Any, hold_s: float) -> Any:
        """See `Coordinator.exchange`."""
        return await self._open().exchange(worker, incarnation, batch, hold_s)

    async def get_many(self, keys: list[str]) -> Any:
        """See `Coordinator.get_many`."""
        found, fault = await self._open().get_many(keys)
        self._hits += len(found)
        return found, fault

    async def put_many(self, pairs: Any) -> Any:
        """See `Coordinator.put_many`."""
        return await self._open().put_many(pairs)

    async def lost(self, worker: str, incarnation: int | None = None) -> None:
        """See `Coordinator.lost`."""
        await self._open().lost(worker, incarnation)

    def _open(self) -> Coordinator:
        if self._coordinator is None:
            raise RuntimeError("the run is over, or has not begun.")
        return self._coordinator
