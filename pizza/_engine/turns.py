# SPDX-License-Identifier: Apache-2.0
"""Places in a queue that callers share fairly, however many requests each of them has waiting."""

from __future__ import annotations

_SERIAL_BITS = 48


class Turns:
    """Hands out tickets; lower ones go first.

    Start-time fair queueing with requests of equal weight (Goyal, Vin and Cheng, "Start-time Fair
    Queueing", SIGCOMM 1996, section 2): a request's turn is one after that of its caller's request
    before it, and one after the turn that passes now for a caller who has nothing waiting. So a
    caller with 40 requests waits for 40 of each other caller, not for all that others have asked.
    Those with the same turn go in the order in which they asked.
    """

    __slots__ = ("_now", "_serial")

    def __init__(self) -> None:
        self._now = 0
        """The highest turn that has passed."""
        self._serial = 0

    def ticket(self, after: int = 0) -> int:
        """The ticket of a request whose caller's last one is ``after``; 0 = it has none."""
        self._serial += 1
        return (max(self._now, after >> _SERIAL_BITS) + 1) << _SERIAL_BITS | self._serial

    def passed(self, ticket: int) -> None:
        """The holder of a ticket has passed."""
        self._now = max(self._now, ticket >> _SERIAL_BITS)


class Line:
    """The requests of one caller, as a queue knows them.

    Attributes:
        last: The ticket of the newest.
    """

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = 0
