# SPDX-License-Identifier: Apache-2.0
"""The gate of one worker: it asks the coordinator for leave, for many requests in one call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Self

from pizza.errors import ConfigError, PizzaError, SessionClosedError
from pizza.gate import Gate, Leave, SystemClock
from pizza.limits import Spent
from pizza_ray.wire import Ask, Batch, LinkError, Report, to_error, to_fault, to_rates

if TYPE_CHECKING:
    from types import TracebackType

    from pizza.gate import Clock
    from pizza.limits import RateStatus
    from pizza_ray.wire import Delivery, Fault, Link, Terms

_HOLD_S = 2.0
"""How long a call is held at most, when there is nothing for this worker."""
_CALLS_MOST = 4
_CLOSE_S = 10.0
_LATE_MOST = 10
"""Times that leave may come too late for one request."""


class _Grant(NamedTuple):
    """Leave, and until when it is good, seconds of this worker's clock."""

    id: int
    until: float


class LeasedGate(Gate):
    """Asks for leave over a link; for ``Session(gate=...)``.

    One task calls the coordinator, at most every `Terms.apart_s` seconds: whatever was asked,
    given up or finished meanwhile goes in the next call, and all that was granted comes back in
    its answer, which the coordinator holds until there is something. ::

        async with LeasedGate(link, worker="w1", incarnation=1) as gate:
            async with pizza.Session(model, gate=gate, cache=SharedStore(link)) as session:
                ...

    When the link breaks, everybody who waits gets a `LinkError`, and so does everybody who comes.

    Args:
        link: The way to the coordinator.
        worker: This worker's name, its own in the run.
        incarnation: Higher whenever a worker of that name begins again.
        clock: The clock; the system's when ``None``.
    """

    def __init__(
        self, link: Link, *, worker: str, incarnation: int, clock: Clock | None = None
    ) -> None:
        self._link = link
        self._worker = worker
        self._incarnation = incarnation
        self._clock = clock or SystemClock()
        self._terms: Terms | None = None
        self._ahead_s = 0.0
        """The coordinator's clock minus this one."""
        self._number = 0
        self._ticket = 0
        self._waiters: dict[int, asyncio.Future[_Grant]] = {}
        self._asks: dict[int, Ask] = {}
        self._cancels: list[int] = []
        self._reports: list[tuple[Report, float]] = []
        self._bars: list[Fault] = []
        self._held = 0
        self._spent = Spent()
        self._talking: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._failure: Fault | None = None
        self._closed = False

    # --- life ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """Register with the coordinator.

        Raises:
            LinkError: There is none, or this incarnation was declared lost.
        """
        began = self._clock.now()
        self._terms = await self._link.register(self._worker, self._incarnation)
        self._ahead_s = self._terms.now_s - (began + self._clock.now()) / 2
        self._talking = asyncio.create_task(self._talk(self._terms), name="pizza-lease")

    async def aclose(self) -> None:
        """Say what is left to say, and sign off: leave that is still held counts as sent."""
        self.close()
        if (task := self._talking) is None:
            return
        self._talking = None
        try:
            async with self._clock.timeout(_CLOSE_S):
                await asyncio.wait((task,))
                if self._failure is None:
                    await self._link.lost(self._worker, self._incarnation)
        except (TimeoutError, LinkError):
            pass  # whoever watches over workers finds out by himself
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # --- the gate -----------------------------------------------------------------------------

    def ticket(self, after: int = 0) -> int:
        """See `Gate.ticket`; the time on the coordinator's clock, which all workers share.

        First come, first served: a share for each caller would need to know how far the queue has
        come, and what a worker knows of that is old.
        """
        now = int((self._clock.now() + self._ahead_s) * 1e6)
        self._ticket = max(self._ticket + 1, now)
        return self._ticket

    async def enter(self, ticket: int, worst: Spent) -> Leave:
        """See `Gate.enter`.

        Raises:
            LinkError: The coordinator is gone, or this worker was declared lost.
            ConfigError: Leave came too late ten times: the burst is too small for this network.
        """
        for _ in range(_LATE_MOST):
            grant = await self._granted(ticket, worst)
            now = self._clock.now()
            if now <= grant.until:
                return Leave(worst, now, grant.id)
            self._report(Report(grant.id, "back"), now)
        lease_s = self._terms.lease_s if self._terms else 0.0
        raise ConfigError(
            f"leave to send came more than {lease_s:g} s late {_LATE_MOST} times in a row: worker "
            f"{self._worker!r} or the way to its coordinator is too slow for this burst_s. Use a "
            "larger Limits.burst_s, or fewer workers on a machine."
        )

    def begin(self, leave: Leave) -> None:
        """See `Gate.begin`; the coordinator has noted it already."""
        leave.begun = True

    def give_back(self, leave: Leave) -> None:
        """See `Gate.give_back`."""
        self._report(Report(leave.held, "back"), leave.sent_at)

    def finish(
        self,
        leave: Leave,
        spent: Spent,
        *,
        rate: RateStatus | None = None,
        tokens_used: int | None = None,
        answered: bool = True,
    ) -> None:
        """See `Gate.finish`."""
        report = Report(
            leave.held,
            "finish",
            spent.calls,
            spent.tokens,
            spent.cost,
            answered=answered,
            tokens_used=tokens_used,
            rate=to_rates(rate),
        )
        self._report(report, leave.sent_at)

    def refuse(self, leave: Leave, *, retry_after_s: float | None, rate: RateStatus | None) -> None:
        """See `Gate.refuse`."""
        report = Report(leave.held, "refuse", retry_after_s=retry_after_s, rate=to_rates(rate))
        self._report(report, leave.sent_at)

    def bar(self, error: PizzaError) -> None:
        """See `Gate.bar`; for all workers."""
        self._bars.append(to_fault(error))
        self._wanted.set()

    def close(self) -> None:
        """See `Gate.close`; `aclose` does more."""
        self._closed = True
        closed = SessionClosedError("the gate was closed while this request waited.")
        self._fail_all(to_fault(closed))
        self._wanted.set()

    @property
    def in_flight(self) -> int:
        """Leaves that this worker holds."""
        return self._held

    @property
    def queued(self) -> int:
        """Attempts that wait here."""
        return len(self._waiters)

    @property
    def spent(self) -> Spent:
        """What all workers have spent, as of the coordinator's last word."""
        return self._spent

    # --- waiting ------------------------------------------------------------------------------

    async def _granted(self, ticket: int, worst: Spent) -> _Grant:
        if self._failure is not None:
            raise to_error(self._failure)
        if self._talking is None or self._closed:
            raise SessionClosedError(
                "this gate is not open: use it inside of 'async with LeasedGate(...)'."
            )
        self._number += 1
        number = self._number
        future: asyncio.Future[_Grant] = asyncio.get_running_loop().create_future()
        self._waiters[number] = future
        self._asks[number] = Ask(number, ticket, worst.calls, worst.tokens, worst.cost)
        self._wanted.set()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._report(Report(number, "back"), 0.0)
            else:
                self._withdraw(number)
            raise

    def _withdraw(self, number: int) -> None:
        if self._waiters.pop(number, None) is None:
            return
        if self._asks.pop(number, None) is None:
            self._cancels.append(number)
            self._wanted.set()

    def _fail_all(self, fault: Fault) -> None:
        for number, future in tuple(self._waiters.items()):
            self._withdraw(number)
            if not future.done():
                future.set_exception(to_error(fault))

    def _report(self, report: Report, sent_at: float) -> None:
        self._held -= 1
        self._reports.append((report, sent_at))
        self._wanted.set()

    # --- talking ------------------------------------------------------------------------------

    async def _talk(self, terms: Terms) -> None:
        calls: set[asyncio.Task[None]] = set()
        try:
            while self._failure is None and not (self._closed and self._silent and not calls):
                # An answer of a call that is held brings what is granted. Whoever has something
                # to say makes another one, which ends the first.
                if (not self._silent and len(calls) < _CALLS_MOST) or (self._waiters and not calls):
                    call = asyncio.create_task(self._call(terms), name="pizza-lease-call")
                    calls.add(call)
                    call.add_done_callback(calls.discard)
                    await self._clock.sleep(terms.apart_s)
                else:
                    self._wanted.clear()
                    await self._wanted.wait()
        finally:
            for call in calls:
                call.cancel()
            if calls:
                await asyncio.wait(tuple(calls))

    async def _call(self, terms: Terms) -> None:
        began = self._clock.now()
        try:
            delivery = await self._link.exchange(
                self._worker,
                self._incarnation,
                self._said(),
                _HOLD_S if self._waiters and not self._closed else 0.0,
            )
            self._hear(delivery, began, terms)
        except PizzaError as error:
            self._break(error)
        except Exception as error:  # a bug here must not leave anybody waiting for ever
            self._break(LinkError(f"the link failed with {type(error).__name__}: {error}"))
        # After the task is done, when it does not count any more.
        asyncio.get_running_loop().call_soon(self._wanted.set)

    @property
    def _silent(self) -> bool:
        """Whether there is nothing to say."""
        return not (self._asks or self._cancels or self._reports or self._bars)

    def _said(self) -> Batch:
        """All that there is to say, taken."""
        now = self._clock.now()
        reports = [report._replace(age_s=now - sent_at) for report, sent_at in self._reports]
        batch = Batch(list(self._asks.values()), self._cancels, reports, self._bars)
        self._asks, self._cancels, self._reports, self._bars = {}, [], [], []
        return batch

    def _hear(self, delivery: Delivery, began: float, terms: Terms) -> None:
        if delivery.lost:
            raise LinkError(
                f"worker {self._worker!r} (incarnation {self._incarnation}) was declared lost: "
                "what it says is not heard any more. Start it again with a higher incarnation."
            )
        calls, tokens, cost = delivery.spent
        self._spent = Spent(calls=calls, tokens=tokens, cost=cost)
        now = self._clock.now()
        # What is not known of the way is taken for the way back: never younger than it is.
        under_way = max(0.0, now - began - delivery.held_s)
        for number, age_s in delivery.grants:
            future = self._waiters.pop(number, None)
            if future is None or future.done():
                # Given up meanwhile. The coordinator was told, unless that call was overtaken.
                self._reports.append((Report(number, "back"), now))
                continue
            self._held += 1
            future.set_result(_Grant(number, now - age_s - under_way + terms.lease_s))
        for number, fault in delivery.faults:
            future = self._waiters.pop(number, None)
            if future is not None and not future.done():
                future.set_exception(to_error(fault))

    def _break(self, error: PizzaError) -> None:
        self._failure = to_fault(error)
        self._fail_all(self._failure)
