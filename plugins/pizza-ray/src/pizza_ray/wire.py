# SPDX-License-Identifier: Apache-2.0
"""What workers and the coordinator say to each other: plain values, and errors as such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pizza import errors
from pizza.errors import PizzaError
from pizza.limits import RateStatus

Fault = tuple[str, str, dict[str, Any]]
"""An error: the name of its type, its message, what else it knows."""

Rates = tuple[float | None, ...]
"""The fields of a `RateStatus`, in its order."""

_RATE_FIELDS = tuple(RateStatus.__dataclass_fields__)


class LinkError(PizzaError):
    """The coordinator is gone, or has declared this worker lost: the worker must end."""


class Ask(NamedTuple):
    """Somebody waits for leave to send.

    Attributes:
        id: The worker's own number of it.
        ticket: Its place in the queue.
        calls, tokens, cost: What the attempt may cost at most.
    """

    id: int
    ticket: int
    calls: int
    tokens: int
    cost: float


class Report(NamedTuple):
    """What became of an attempt that leave was given for.

    Attributes:
        id: The ask's.
        kind: ``"finish"``, ``"refuse"`` (429) or ``"back"`` (never sent).
        calls, tokens, cost: What it cost.
        age_s: Seconds since it was sent.
        answered: Whether the server said anything.
        tokens_used: Tokens that the server counted, or ``None``.
        retry_after_s: What a refusal asked for, or ``None``.
        rate: What the server said of its limits, or ``None``.
    """

    id: int
    kind: str
    calls: int = 0
    tokens: int = 0
    cost: float = 0.0
    age_s: float = 0.0
    answered: bool = True
    tokens_used: int | None = None
    retry_after_s: float | None = None
    rate: Rates | None = None


class Batch(NamedTuple):
    """All that a worker has to say at one moment.

    Attributes:
        asks: Who began to wait.
        cancels: Ids of those who do not wait any more.
        reports: What became of attempts.
        bars: Errors of rejected keys.
    """

    asks: list[Ask]
    cancels: list[int]
    reports: list[Report]
    bars: list[Fault]


class Delivery(NamedTuple):
    """All that the coordinator has for a worker at one moment.

    Attributes:
        grants: Ids of asks that leave was given for, and how long ago, seconds.
        faults: Ids of asks that will get no leave, and why.
        held_s: Seconds that the coordinator took to answer.
        spent: Calls, tokens and dollars that all workers have spent together.
        lost: The worker was declared lost: nothing that it says is heard.
    """

    grants: list[tuple[int, float]]
    faults: list[tuple[int, Fault]]
    held_s: float
    spent: tuple[int, int, float]
    lost: bool = False


class Terms(NamedTuple):
    """What a worker is told when it registers.

    Attributes:
        now_s: The coordinator's clock.
        lease_s: Seconds for which a leave is good; older ones are given back.
        apart_s: Shortest time between two calls of a worker, seconds.
    """

    now_s: float
    lease_s: float
    apart_s: float


class Link(Protocol):
    """The way to the coordinator; a `Coordinator` in the same process is one itself.

    Every call raises `LinkError` when the coordinator cannot be reached.
    """

    async def register(self, worker: str, incarnation: int) -> Terms:
        """See `Coordinator.register`."""
        ...

    async def exchange(
        self, worker: str, incarnation: int, batch: Batch, hold_s: float
    ) -> Delivery:
        """See `Coordinator.exchange`."""
        ...

    async def lost(self, worker: str, incarnation: int | None = None) -> None:
        """See `Coordinator.lost`."""
        ...

    async def get_many(self, keys: Sequence[str]) -> tuple[dict[str, bytes], Fault | None]:
        """See `Coordinator.get_many`."""
        ...

    async def put_many(self, values: Mapping[str, bytes]) -> Fault | None:
        """See `Coordinator.put_many`."""
        ...


def to_fault(error: PizzaError) -> Fault:
    """An error as plain values; what it knows beyond those stays behind."""
    known = {
        name: value
        for name, value in vars(error).items()
        if value is None or isinstance(value, str | int | float | bool)
    }
    return type(error).__name__, str(error), known


def to_error(fault: Fault) -> PizzaError:
    """A new error of that kind: every task that raises one needs its own."""
    name, message, known = fault
    kind = LinkError if name == LinkError.__name__ else getattr(errors, name, PizzaError)
    made: PizzaError = kind.__new__(kind, message)
    made.args = (message,)
    vars(made).update(known)
    return made


def to_rates(rate: RateStatus | None) -> Rates | None:
    """What a server said, as a tuple."""
    return None if rate is None else tuple(getattr(rate, name) for name in _RATE_FIELDS)


def to_status(rates: Rates | None) -> RateStatus | None:
    """What a server said."""
    return None if rates is None else RateStatus(**dict(zip(_RATE_FIELDS, rates, strict=True)))
