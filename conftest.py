# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests, of the core and of the plugins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.server import ServedModel


@pytest.fixture
def model_server() -> Iterator[ServedModel]:
    """The embedded model behind an OpenAI-compatible API, with counters of its own."""
    from support.server import served_model

    with served_model() as server:
        yield server
