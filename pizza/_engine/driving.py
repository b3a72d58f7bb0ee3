# SPDX-License-Identifier: Apache-2.0
"""Running the generators that ask for coalitions: methods and measures."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from pizza import coalition

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pizza._engine.measure import Measurement


async def drive(plan: Any, measurement: Measurement, n_units: int, who: str) -> Any:
    """Run a method's generator to its end and return its scores.

    The generator runs on the session's thread: estimators fit for seconds.

    Raises:
        PluginContractError: The generator yields or returns something of a wrong shape.
    """
    values: NDArray[np.float64] | None = None
    try:
        while True:
            done, asked = await measurement.in_thread(_step, plan, values)
            if done:
                return asked
            checked = coalition.check(asked, n_units, who=f"the method {who!r}")
            values = await measurement.values(checked)
    finally:
        # Who is cancelled while the thread is in the generator leaves it to that: it ends with
        # its last reference.
        with contextlib.suppress(ValueError):
            plan.close()


def _step(plan: Any, values: NDArray[np.float64] | None) -> tuple[bool, Any]:
    """What the generator asks for next, or ``(True, what it returns)``.

    A thread cannot hand a StopIteration to a coroutine.
    """
    try:
        return False, plan.send(values)
    except StopIteration as finished:
        return True, finished.value
