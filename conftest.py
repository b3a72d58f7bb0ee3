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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first: workers then have short ones to end together with."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
