# SPDX-License-Identifier: Apache-2.0
"""Who gives leave to send, for all workers of a run; and who keeps their answers.

Nothing here knows of Ray: a `Coordinator` is as good in one process, and its methods take and
return plain values, so that an actor can have them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pizza.errors import CacheError, PizzaError
from pizza.gate import LocalGate, SystemClock
from pizza.limits import Spent
from pizza_ray.book import Entry, Standing
from pizza_ray.wire import Delivery, LinkError, Terms, to_error, to_fault, to_status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pizza.abc import ResponseCache
    from pizza.gate import Clock, Leave
    from pizza.limits import Budget, Limits, Price, Tally
    from pizza_ray.wire import Ask, Batch, Fault, Report

_LONGEST_LEASE_S = 2.0
_BURST_S = 60.0
"""The burst of a limit that was told without one, seconds of the rate."""
_APART_S = 0.05
_PER_LEASE = 8
"""Times that a worker may call within a lease: what is granted is sent long before it ends."""


class Coordinator:
    """One limit, one budget, one store and the book of who holds leave to send.

    Lives on one event loop. Whatever its methods are told by a worker that was declared lost is
    ignored, and the worker is told so.

    Args:
        limits: Rates and concurrency of all workers together. What they *send* keeps to it: the
            time that leave takes to reach a worker is taken off the burst.
        budget: Caps on all workers together.
        price: What the backend's tokens cost; needed for a cap on money.
        backend: The backend's name, for messages.
        tally: What was spent before, and where what is spent is noted; stays its owner's to close.
        store: Where answers are kept; closed by `aclose`.
        clock: The clock; the system's when ``None``.

    Raises:
        ConfigError: A cap on money without a price.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        budget: Budget | None = None,
        price: Price | None = None,
        backend: str = "the backend",
        tally: Tally | None = None,
        store: ResponseCache | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._lease_s = min(_LONGEST_LEASE_S, (limits.burst_s or _BURST_S) / 2)
        self._gate = LocalGate(
            limits,
            self._clock,
            budget=budget,
            price=price,
            backend=backend,
            tally=tally,
            lag_s=self._lease_s,
        )
        self._store = store
        self._workers: dict[str, Entry] = {}
        self._ended: dict[str, int] = {}
        """Newest incarnation of each name that was declared lost."""
        self._sent = self._calls = 0

    # --- what workers call --------------------------------------------------------------------

    async def register(self, worker: str, incarnation: int) -> Terms:
        """A worker begins. An earlier incarnation of it is lost by that.

        Raises:
            LinkError: This incarnation, or a later one, was declared lost already.
        """
        self._calls += 1
        known = self._workers.get(worker)
        newest = self._ended.get(worker) if known is None else known.incarnation
        if newest is not None and incarnation <= newest:
            raise LinkError(
                f"worker {worker!r} cannot begin as incarnation {incarnation}: {newest} has begun "
                "already. Start it again with a higher one."
            )
        await self.lost(worker)
        self._workers[worker] = Entry(worker, incarnation)
        apart_s = min(_APART_S, self._lease_s / _PER_LEASE)
        return Terms(self._clock.now(), self._lease_s, apart_s)

    async def exchange(
        self, worker: str, incarnation: int, batch: Batch, hold_s: float
    ) -> Delivery:
        """Hear all that a worker has to say, and tell it all that there is for it.

        Args:
            worker: Its name.
            incarnation: Its incarnation.
            batch: What it says.
            hold_s: How long to wait, seconds, when there is nothing for it yet and it says nothing
                else meanwhile.
        """
        self._calls += 1
        began = self._clock.now()
        known = self._workers.get(worker)
        if known is None or known.incarnation != incarnation:
            return self._delivery(None, began)
        # An earlier call of this worker that is held ends: this one is answered from here on.
        known.changed.set()
        known.changed = changed = asyncio.Event()
        self._hear(known, batch)
        if hold_s > 0 and not (known.granted or known.faults):
            await self._wait(changed, hold_s)
        return self._delivery(None if known.lost else known, began)

    async def get_many(self, keys: Sequence[str]) -> tuple[dict[str, bytes], Fault | None]:
        """The answers that are kept under these keys, or why they cannot be read."""
        self._calls += 1
        try:
            return dict(await self._kept.get_many(keys)), None
        except Exception as error:  # a cache of somebody else's; what went wrong must arrive
            return {}, to_fault(_cause(error))

    async def put_many(self, values: Mapping[str, bytes]) -> Fault | None:
        """Keep answers; returns when they are kept, or why they cannot be.

        Those of a worker that was declared lost are kept, too: they were paid for.
        """
        self._calls += 1
        try:
            await self._kept.put_many(values)
        except Exception as error:  # as above
            return to_fault(_cause(error))
        return None

    # --- what the driver calls ----------------------------------------------------------------

    async def lost(self, worker: str, incarnation: int | None = None) -> None:
        """A worker is gone: everything is as if it had never been, but for what it may have spent.

        What it asked for is withdrawn. Leave that it was given and did not account for counts as
        sent, at the worst case: the server may have charged for it.

        Args:
            worker: Its name. One that is not known, or lost already, is no error.
            incarnation: Only if this is the one that runs; ``None`` = whichever.
        """
        known = self._workers.get(worker)
        if known is None or incarnation not in (None, known.incarnation):
            return
        del self._workers[worker]
        self._ended[worker] = known.incarnation
        known.lost = True
        known.changed.set()
        waiting = tuple(known.waiting.values())
        for task in waiting:
            task.cancel()
        for number, leave in known.held.items():
            if number in known.granted:
                self._give_back(leave)
            else:
                self._gate.finish(leave, leave.worst, answered=False)
        known.held.clear()
        known.granted.clear()
        if waiting:
            await asyncio.wait(waiting)

    async def standing(self) -> Standing:
        """Where all workers stand together."""
        return Standing(
            spent=self._gate.spent,
            sent=self._sent,
            in_flight=self._gate.in_flight,
            queued=self._gate.queued,
            workers=len(self._workers),
            calls=self._calls,
        )

    async def aclose(self) -> None:
        """Give no more leave, count what is under way as sent, close the store."""
        self._gate.close()
        for worker in tuple(self._workers):
            await self.lost(worker)
        if self._store is not None:
            await self._store.aclose()

    # --- the book -----------------------------------------------------------------------------

    def _hear(self, worker: Entry, batch: Batch) -> None:
        for fault in batch.bars:
            self._gate.bar(to_error(fault))
        for report in batch.reports:
            self._account(worker, report)
        for number in batch.cancels:
            if (task := worker.waiting.pop(number, None)) is not None:
                task.cancel()
            elif (leave := worker.held.pop(number, None)) is not None:
                worker.granted.pop(number, None)
                self._give_back(leave)
        for ask in batch.asks:
            worker.waiting[ask.id] = asyncio.create_task(self._ask(worker, ask))

    async def _ask(self, worker: Entry, ask: Ask) -> None:
        worst = Spent(calls=ask.calls, tokens=ask.tokens, cost=ask.cost)
        try:
            leave = await self._gate.enter(ask.ticket, worst)
        except PizzaError as error:
            worker.faults.append((ask.id, to_fault(error)))
        except Exception as error:  # a bug here must not leave a worker waiting for ever
            what = PizzaError(f"the coordinator failed with {type(error).__name__}: {error}")
            worker.faults.append((ask.id, to_fault(what)))
        else:
            # Noted as spent from here on: nobody knows when a worker that dies had sent it.
            self._gate.begin(leave)
            self._sent += 1
            worker.held[ask.id] = leave
            worker.granted[ask.id] = self._clock.now()
        worker.waiting.pop(ask.id, None)
        worker.changed.set()

    def _account(self, worker: Entry, report: Report) -> None:
        leave = worker.held.pop(report.id, None)
        if leave is None:
            return
        if report.kind == "back":
            self._give_back(leave)
            return
        # What a server says of its limits is true of when it was asked, not of when leave was
        # given.
        leave.sent_at = max(leave.sent_at, self._clock.now() - report.age_s)
        rate = to_status(report.rate)
        if report.kind == "refuse":
            self._gate.refuse(leave, retry_after_s=report.retry_after_s, rate=rate)
            return
        self._gate.finish(
            leave,
            Spent(calls=report.calls, tokens=report.tokens, cost=report.cost),
            rate=rate,
            tokens_used=report.tokens_used,
            answered=report.answered,
        )

    def _give_back(self, leave: Leave) -> None:
        self._sent -= 1
        self._gate.give_back(leave)

    async def _wait(self, changed: asyncio.Event, seconds: float) -> None:
        timer = self._clock.call_later(seconds, changed.set)
        try:
            await changed.wait()
        finally:
            timer.cancel()

    def _delivery(self, worker: Entry | None, began: float) -> Delivery:
        now, spent = self._clock.now(), self._gate.spent
        grants: list[tuple[int, float]] = []
        faults: list[tuple[int, Fault]] = []
        if worker is not None:
            grants = [(number, now - at) for number, at in worker.granted.items()]
            faults, worker.faults = worker.faults, []
            worker.granted.clear()
        return Delivery(
            grants, faults, now - began, (spent.calls, spent.tokens, spent.cost), worker is None
        )

    @property
    def _kept(self) -> ResponseCache:
        if self._store is None:
            raise CacheError("this coordinator keeps no answers: give it a store.")
        return self._store


def _cause(error: Exception) -> PizzaError:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, PizzaError):
        return error
    return CacheError(f"the store failed with {type(error).__name__}: {error}")


__all__ = ["Coordinator", "Standing"]
