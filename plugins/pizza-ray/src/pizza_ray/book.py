# SPDX-License-Identifier: Apache-2.0
"""What a coordinator knows of its workers, one by one and together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pizza.limits import Spent

if TYPE_CHECKING:
    from pizza.gate import Leave
    from pizza_ray.wire import Fault


@dataclass(slots=True, eq=False)
class Entry:
    """One worker in the book of a coordinator.

    Attributes:
        name, incarnation: Who it is.
        waiting: Asks that wait for leave.
        held: Leaves that were given and not accounted for.
        granted: Those of them that the worker does not know of yet, and when they were given.
        faults: Asks that will get no leave, and why; not told yet.
        changed: There is something to tell.
        lost: It was declared lost.
    """

    name: str
    incarnation: int
    waiting: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    held: dict[int, Leave] = field(default_factory=dict)
    granted: dict[int, float] = field(default_factory=dict)
    faults: list[tuple[int, Fault]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False


class Standing(NamedTuple):
    """Where all workers stand together.

    Attributes:
        spent: What counts towards the caps.
        sent: Attempts that leave was given for since the coordinator was made.
        in_flight: Leaves that are not accounted for yet.
        queued: Attempts that wait for their rate or for a slot.
        workers: Workers that registered and were not lost.
        calls: Calls that workers made, all kinds together.
    """

    spent: Spent
    sent: int
    in_flight: int
    queued: int
    workers: int
    calls: int
