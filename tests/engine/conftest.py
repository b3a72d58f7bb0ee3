# SPDX-License-Identifier: Apache-2.0
"""The tests' own helpers and the benchmarks' server, importable; a clock, and a backend on it."""

import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).resolve().parent
for _folder in (_HERE / "support", _HERE.parents[1] / "benchmarks"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))


@pytest.fixture
def clock():
    from pizza.testing.clock import ManualClock

    return ManualClock()


@pytest.fixture
def backend(clock):
    from simulated import Simulated

    return Simulated(clock)
