# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests, of the core and of the plugins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.server import ServedModel

# Before numpy is imported: the matrices in these tests are small, and BLAS threads that wait for
# one another on a busy machine make a run many times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def model_server() -> Iterator[ServedModel]:
    """The embedded model behind an OpenAI-compatible API, with counters of its own."""
    from support.server import served_model

    with served_model() as server:
        yield server
