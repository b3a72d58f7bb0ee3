# SPDX-License-Identifier: Apache-2.0
"""Surroundings of all tests of local models."""

import importlib.util
import sys

import pytest

# Where torch is not installed there is nothing here to be tested.
collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of tiny models wait for one another longer than they work."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
