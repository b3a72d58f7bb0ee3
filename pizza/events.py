# SPDX-License-Identifier: Apache-2.0
"""What happens while many prompts are explained, as frozen values.

`Session.attribute_many` tells of rows; a run in a directory (`pizza.bulk`) also of parts, of its
pace and of its end. No event holds the text of a prompt.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from pizza.errors import PizzaError
from pizza.limits import Spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        at: When, seconds since the epoch.
    """

    at: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for logs."""
        found: dict[str, Any] = {"event": type(self).__name__}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            found[field.name] = dataclasses.asdict(value) if isinstance(value, Spent) else value
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class RowEvent(Event):
    """Something that happened to one prompt.

    Attributes:
        id: The prompt's name, or ``None`` when it was given without one.
        index: Its position among those that were given, from 0.
    """

    id: str | None
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RowStarted(RowEvent):
    """A worker took the prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFinished(RowEvent):
    """The prompt is explained.

    Attributes:
        calls: Requests that were sent for it.
        cache_hits: Answers that came from the cache.
        unanswered: Coalitions that have no answer.
        seconds: How long it took.
    """

    calls: int
    cache_hits: int
    unanswered: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFailed(RowEvent):
    """There is no result for the prompt.

    Attributes:
        error: Why.
        seconds: How long it took.
    """

    error: PizzaError
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for logs."""
        return {
            "event": "RowFailed",
            "at": self.at,
            "id": self.id,
            "index": self.index,
            "kind": type(self.error).__name__,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOpened(Event):
    """A run has read its input and is about to send.

    Attributes:
        rows: Rows of the input.
        done: Rows with a result already.
        failed: Rows that failed before and are not tried again.
        spent: What the runs before it spent.
    """

    rows: int
    done: int
    failed: int
    spent: Spent


@dataclass(frozen=True, slots=True, kw_only=True)
class PartWritten(Event):
    """Results are on the disk under their final name.

    Attributes:
        name: The file's name.
        rows: Rows in it.
    """

    name: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace(Event):
    """Where a run stands; comes about once a second.

    Attributes:
        done: Rows with a result, those of earlier runs included.
        failed: Rows without one.
        total: Rows of the input.
        calls: Requests sent by this run.
        cache_hits: Answers that were there already.
        in_flight: Requests under way.
        per_second: Requests per second, over the last ten seconds.
        spent: What all runs in this directory spent.
        left_s: Seconds until the end at the pace of the last minute, or ``None``: not known yet.
    """

    done: int
    failed: int
    total: int
    calls: int
    cache_hits: int
    in_flight: int
    per_second: float
    spent: Spent
    left_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    """A run is over.

    Attributes:
        reason: ``"finished"``, ``"budget"``, ``"circuit"``, ``"storage"``, ``"interrupted"`` or
            ``"error"``.
        message: What stopped it and what to do, or empty.
        done: Rows with a result.
        failed: Rows without one.
        total: Rows of the input.
        spent: What all runs in this directory spent.
        kind: Type of the error that stopped it, or empty.
    """

    reason: str
    message: str
    done: int
    failed: int
    total: int
    spent: Spent
    kind: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for logs; without a message that may repeat what a server said."""
        found = Event.to_dict(self)
        if self.reason in ("circuit", "error"):
            found["message"] = ""
        return found
