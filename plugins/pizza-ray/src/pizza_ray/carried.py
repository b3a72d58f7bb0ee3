# SPDX-License-Identifier: Apache-2.0
"""What goes between a run and its workers, as plain values; errors among them."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pizza.errors import PizzaError, PluginError
from pizza.events import RowFinished
from pizza.limits import Price
from pizza_ray.wire import to_error, to_fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a worker needs to know; nothing secret.

    Attributes:
        directory: The run directory, the same path on every node.
        run: The run's id, as its manifest has it.
        model: The model's name.
        options: Of `Session.attribute`.
        session: Of `pizza.Session`.
        keep: ``"scores"`` or ``"full"``.
        part_rows: Most rows of a part.
        version: Of pizza.
        environment: Variables that are set where they are not.
    """

    directory: str
    run: str
    model: str
    options: Mapping[str, Any]
    session: Mapping[str, Any]
    keep: str
    part_rows: int
    version: str
    environment: Mapping[str, str]


class Secret:
    """A key on its way to a worker. It travels in a call, which Ray keeps in memory only."""

    def __init__(self, value: str | None) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "<Secret>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a worker found when it opened its session.

    Attributes:
        identity: The backend's.
        backend: Its name.
        price: Its price, or ``None``.
        batch_size: Requests that it answers together.
        plugins: Name, distribution and version of each.
    """

    identity: str
    backend: str
    price: Price | None
    batch_size: int
    plugins: Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part that waits for its name.

    Attributes:
        file: The file's name in the folder of results.
        places: Its rows' positions in the input.
    """

    file: str
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a worker has to tell.

    Attributes:
        finished: What became of the row, or ``None``.
        failure: Why the row has no result, as `described`, or ``None``.
        at: When, seconds since the epoch.
        seconds: How long it took.
        parts: Parts that were written and not told of before.
        no_room: Error number and text of why something cannot be written, or ``None``.
    """

    finished: RowFinished | None = None
    failure: Mapping[str, Any] | None = None
    at: float = 0.0
    seconds: float = 0.0
    parts: Sequence[Part] = field(default=())
    no_room: tuple[int, str] | None = None


# --- errors -------------------------------------------------------------------------------------


def described(error: BaseException) -> dict[str, Any]:
    """An error as plain values, with its causes."""
    cause = error.__cause__
    if not isinstance(error, PizzaError):
        # Of a class that may not be there where it is read.
        return {"kind": type(error).__name__, "message": str(error), "fault": None, "cause": None}
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "fault": to_fault(error),
        "cause": None if cause is None else described(cause),
    }


def rebuilt(found: Mapping[str, Any]) -> PizzaError:
    """The error that was `described`; what is no error of pizza is a `PluginError`."""
    if found["fault"] is None:
        made: PizzaError = PluginError(
            f"a worker failed with {found['kind']}: {found['message']}. This is a bug in pizza or "
            "in a plugin."
        )
        made.__cause__ = _foreign(found)
        return made
    made = to_error(found["fault"])
    cause = found["cause"]
    if cause is not None:
        made.__cause__ = rebuilt(cause) if cause["fault"] is not None else _foreign(cause)
    return made


def _foreign(found: Mapping[str, Any]) -> Exception:
    kind: Any = getattr(builtins, found["kind"], None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind = type(found["kind"], (Exception,), {})
    made: Exception = kind.__new__(kind)
    made.args = (found["message"],)
    return made
