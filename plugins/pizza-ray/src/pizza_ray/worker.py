# SPDX-License-Identifier: Apache-2.0
"""`Worker`: the actor that explains rows, several at a time, and writes what it found."""

from __future__ import annotations

import asyncio
import os
import time
from itertools import count
from pathlib import Path
from typing import Any

import pizza
from pizza.bulk import Pending
from pizza.bulk.directory import read_manifest
from pizza.bulk.local_engine import known_plugins
from pizza.bulk.parts import write_unnamed
from pizza.bulk.rows import item_of
from pizza.bulk.writer import PartWriter
from pizza.errors import ConfigError, PizzaError, ResultFormatError
from pizza.events import RowFinished
from pizza.limits import Limits
from pizza.session import Outcome, Session
from pizza_ray.carried import Opened, Order, Part, Secret, Told, described
from pizza_ray.leasing import LeasedGate
from pizza_ray.link import ActorLink
from pizza_ray.shared_store import SharedStore
from pizza_ray.watch import Watch

_SILENT_S = 60.0
"""A run says something every five seconds."""


class Worker:
    """One session, whose leave to send and whose store are the coordinator's.

    `open` is called first, then `begin`, then `explain` as often as wanted, also concurrently;
    `close` at last. Errors are told as values: an error that cannot travel says nothing.

    Args:
        name: What the coordinator knows it by.
        incarnation: How many of this name died before.
        coordinator: The coordinator's actor.
    """

    def __init__(self, name: str, incarnation: int, coordinator: Any) -> None:
        self._name = f"{name}.{incarnation}"
        self._link = ActorLink(coordinator)
        self._gate = LeasedGate(self._link, worker=name, incarnation=incarnation)
        self._life: asyncio.Task[None] | None = None
        self._begin = asyncio.Event()
        self._end = asyncio.Event()
        self._rows: set[asyncio.Task[Outcome]] = set()
        self._numbers = count(1)
        self._parts: list[Part] = []
        self._told = 0
        self._watch = Watch(_SILENT_S)

    # --- life ---------------------------------------------------------------------------------

    async def here(self) -> str:
        """The name of the node: the worker has found a place."""
        return os.uname().nodename

    async def open(self, order: Order, key: Secret) -> Opened | dict[str, Any]:
        """Open the session; nothing is sent. Returns what was found, or the error."""
        self._order = order
        try:
            for name, value in order.environment.items():
                os.environ.setdefault(name, value)
            await asyncio.to_thread(self._check)
            opened: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
            # A session is opened and closed by one task.
            self._life = asyncio.create_task(self._live(key.value, opened), name="pizza-worker")
            await asyncio.wait((self._life, opened), return_when=asyncio.FIRST_COMPLETED)
            if not opened.done():
                await self._life
            self._session = opened.result()
        except Exception as error:
            return described(error)
        self._watch.heard()
        backend = self._session.backend
        return Opened(
            identity=backend.identity,
            backend=backend.name,
            price=backend.price,
            batch_size=backend.batch_size,
            plugins=known_plugins(self._session),
        )

    async def beat(self) -> None:
        """The run is there still."""
        self._watch.heard()

    async def begin(self) -> dict[str, Any] | None:
        """Ask the coordinator to be let in. Returns the error, or ``None``."""
        try:
            await self._gate.open()
        except Exception as error:
            return described(error)
        return None

    async def close(self) -> Told:
        """Give up what is under way, write what is there, and close the session."""
        self._watch.stop()
        for task in self._rows:
            task.cancel()
        if self._rows:
            await asyncio.wait(tuple(self._rows))
        # The last word repeats all parts: whom they were told to may have stopped listening.
        self._told = 0
        told = await self.flush()
        self._end.set()
        if self._life is not None:
            await asyncio.wait((self._life,))
        return told

    def _check(self) -> None:
        order = self._order
        if pizza.__version__ != order.version:
            raise ConfigError(
                f"pizza {order.version} runs here and {pizza.__version__} on node "
                f"{os.uname().nodename}. Install one version everywhere."
            )
        folder = Path(order.directory)
        try:
            found = read_manifest(folder)["id"]
            probe = folder / "results" / f".part-{self._name}-probe.tmp"
            probe.touch()
            probe.unlink()
        except (ResultFormatError, OSError) as error:
            raise ConfigError(
                f"the run directory {folder} is not on node {os.uname().nodename}, or cannot be "
                f"written there ({error}). Workers write results themselves: name a directory that "
                "all nodes share under one path."
            ) from error
        if found != order.run:
            raise ConfigError(
                f"{folder} on node {os.uname().nodename} is another directory than here. Workers "
                "write results themselves: name a directory that all nodes share under one path."
            )

    async def _live(self, key: str | None, opened: asyncio.Future[Session]) -> None:
        order = self._order
        concurrency = order.session.get("max_concurrency")
        session = {k: v for k, v in order.session.items() if k != "max_concurrency"}
        store = SharedStore(self._link)
        self._writer = PartWriter(
            self._write, rows=order.part_rows, full=order.keep == "full", written=self._written
        )
        try:
            async with Session(
                order.model,
                gate=self._gate,
                cache=store,
                api_key=key,
                limits=Limits(max_concurrency=concurrency),
                **session,
            ) as made:
                opened.set_result(made)
                await self._end.wait()
        finally:
            await store.aclose()
            await self._gate.aclose()

    # --- rows ---------------------------------------------------------------------------------

    async def explain(self, pending: Pending) -> Told:
        """Explain one row.

        Returns:
            What became of it; neither a result nor a failure where it was given up.

        Cost: what the row needs; answers that the store has are not paid for.
        """
        began = time.monotonic()
        found: list[RowFinished] = []
        task = asyncio.create_task(self._one(pending, found))
        self._rows.add(task)
        try:
            await asyncio.wait((task,))
        finally:
            self._rows.discard(task)
        if task.cancelled():
            return self._tell()
        outcome = task.result()
        seconds = time.monotonic() - began
        if outcome.attribution is None:
            error = outcome.error or PizzaError("the prompt failed without an error")
            return self._tell(failure=described(error), seconds=seconds)
        try:
            await self._writer.add(pending.row, pending.place, outcome.attribution)
        except OSError as error:
            return self._tell(finished=found[0], seconds=seconds, no_room=_plain(error))
        return self._tell(finished=found[0], seconds=seconds)

    async def flush(self) -> Told:
        """Write what is there, if anything is."""
        try:
            await asyncio.to_thread(self._writer.flush)
        except OSError as error:
            return self._tell(no_room=_plain(error))
        return self._tell()

    async def _one(self, pending: Pending, found: list[RowFinished]) -> Outcome:
        def listen(event: object) -> None:
            if isinstance(event, RowFinished):
                found.append(event)

        async with self._session.attribute_many(
            [item_of(pending.row)],
            concurrency=1,
            on_event=listen,
            **{"skip_failures": True, **self._order.options},
        ) as outcomes:
            async for outcome in outcomes:
                return outcome
        raise AssertionError("one prompt has one outcome")

    def _write(self, batches: list[Any]) -> Path:
        name = f".part-{self._name}-{next(self._numbers)}.tmp"
        path = Path(self._order.directory) / "results" / name
        write_unnamed(path, batches)
        return path

    def _written(self, path: Path, places: list[int]) -> None:
        self._parts.append(Part(file=path.name, places=tuple(places)))

    def _tell(self, **what: Any) -> Told:
        parts = self._parts[self._told :]
        self._told = len(self._parts)
        return Told(at=time.time(), parts=tuple(parts), **what)


def _plain(error: OSError) -> tuple[int, str]:
    return error.errno or 0, error.strerror or str(error)
