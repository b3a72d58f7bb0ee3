# SPDX-License-Identifier: Apache-2.0
"""Leave to send, for those who share one limit and one budget among several sessions.

A session makes a `LocalGate` of its own unless it is given a `Gate`::

    async with pizza.Session(model, gate=gate) as session:
        ...

Whoever makes a gate closes it, after the sessions that use it.
"""

from __future__ import annotations

from pizza._engine.clock import Clock, SystemClock
from pizza._engine.gate import Gate, Leave, LocalGate

__all__ = ["Clock", "Gate", "Leave", "LocalGate", "SystemClock"]
