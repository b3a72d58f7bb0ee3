# SPDX-License-Identifier: Apache-2.0
"""Where a run stands, and how fast it gets on."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from pizza.events import Pace
from pizza.limits import Spent

_RATE_S = 10.0
_PACE_S = 60.0


class Counts(Protocol):
    """What a run has sent and found so far."""

    @property
    def calls(self) -> int:
        """Requests sent."""
        ...

    @property
    def cache_hits(self) -> int:
        """Answers that were there already."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests under way now."""
        ...


@dataclass(slots=True)
class Standing:
    """Counts of one run; belongs to it.

    Attributes:
        total: Rows of the input.
        done: Rows with a result, those of earlier runs included.
        failed: Rows without one.
    """

    total: int
    done: int = 0
    failed: int = 0
    _seen: deque[tuple[float, int, int]] = field(default_factory=deque)

    def pace(self, counts: Counts, spent: Spent) -> Pace:
        """The state now; called about once a second."""
        now = time.monotonic()
        over = self.done + self.failed
        self._seen.append((now, counts.calls, over))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _PACE_S:
            self._seen.popleft()
        recent = next(s for s in self._seen if now - s[0] <= _RATE_S)
        calls_s = (counts.calls - recent[1]) / max(now - recent[0], 1e-9)
        first = self._seen[0]
        rows = over - first[2]
        left = (self.total - over) * (now - first[0]) / rows if rows > 0 else None
        return Pace(
            at=time.time(),
            done=self.done,
            failed=self.failed,
            total=self.total,
            calls=counts.calls,
            cache_hits=counts.cache_hits,
            in_flight=counts.in_flight,
            per_second=calls_s if now > recent[0] else 0.0,
            spent=spent,
            left_s=left,
        )
