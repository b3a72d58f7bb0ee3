# SPDX-License-Identifier: Apache-2.0
"""What an attribution made the backend compute, where the backend counts it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pizza.abc import Backend


class Meter:
    """Reads a backend's running totals at both ends of an attribution. Belongs to one session.

    Backends answer questions of several attributions in one pass, so work cannot be divided between
    attributions that overlap; a reading says whether it is of one that ran alone.
    """

    def __init__(self) -> None:
        self._begun = 0
        self._running = 0

    @contextmanager
    def measure(self, backend: Backend) -> Iterator[Reading]:
        """Measure while this is open."""
        self._begun += 1
        self._running += 1
        try:
            yield Reading(
                meter=self,
                backend=backend,
                before=dict(backend.work),
                begun=self._begun,
                first=self._running == 1,
            )
        finally:
            self._running -= 1

    def begun_since(self, begun: int) -> bool:
        """Whether an attribution began after the one of that number."""
        return self._begun > begun


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """The totals when an attribution began.

    Attributes:
        meter: Whose reading it is.
        backend: What is measured.
        before: Its totals.
        begun: Number of the attribution.
        first: No other attribution was running.
    """

    meter: Meter
    backend: Backend
    before: Mapping[str, int]
    begun: int
    first: bool

    def spent(self) -> dict[str, int | bool]:
        """Work until now, as plain JSON values; empty where the backend counts none.

        ``alone`` is False when other attributions ran meanwhile: their work is counted too.
        """
        now = self.backend.work
        found: dict[str, int | bool] = {k: n - self.before.get(k, 0) for k, n in now.items()}
        if found:
            found["alone"] = self.first and not self.meter.begun_since(self.begun)
        return found
