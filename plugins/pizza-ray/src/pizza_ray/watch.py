# SPDX-License-Identifier: Apache-2.0
"""`Watch`: ends an actor whose run is gone, whatever Ray thinks of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


class Watch:
    """Ends this process when nothing was heard for so long.

    Ray ends actors with their program, but not where nobody reaps the dead: in a container without
    an init it takes the processes of a killed node for alive.

    Args:
        silent_s: For how long, seconds.
        end: Ends the process.
    """

    def __init__(self, silent_s: float, end: Callable[[], object] = lambda: os._exit(1)) -> None:
        self._silent_s = silent_s
        self._end = end
        self._timer: asyncio.TimerHandle | None = None

    def heard(self) -> None:
        """The run has said something; from the first time on it must go on doing so."""
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(self._silent_s, self._end)

    def stop(self) -> None:
        """The run says no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
