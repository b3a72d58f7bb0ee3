# SPDX-License-Identifier: Apache-2.0
"""Bulk runs over a Ray cluster, with one rate limit and one budget.

Importing this imports neither Ray nor the engine; names resolve on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pizza_ray.coordinator import Coordinator as Coordinator
    from pizza_ray.coordinator import Standing as Standing
    from pizza_ray.engine import RayEngine as RayEngine
    from pizza_ray.leasing import LeasedGate as LeasedGate
    from pizza_ray.link import ActorLink as ActorLink
    from pizza_ray.shared_store import SharedStore as SharedStore
    from pizza_ray.wire import Link as Link
    from pizza_ray.wire import LinkError as LinkError

_HOMES = {
    "ActorLink": "link",
    "Coordinator": "coordinator",
    "LeasedGate": "leasing",
    "Link": "wire",
    "LinkError": "wire",
    "RayEngine": "engine",
    "SharedStore": "shared_store",
    "Standing": "coordinator",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


__all__ = [  # noqa: PLE0604 - computed
    *sorted(_HOMES)
]
