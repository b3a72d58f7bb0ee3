# SPDX-License-Identifier: Apache-2.0
"""Local torch models as a pizza plugin: gradients, and perturbations on shared prefixes.

Importing this package imports no torch; its names do when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pizza_local.backend import LocalBackend as LocalBackend
    from pizza_local.methods.base import LocalMethod as LocalMethod
    from pizza_local.methods.base import TokenScores as TokenScores
    from pizza_local.view import View as View

_NAMES = {
    "LocalBackend": "pizza_local.backend",
    "LocalMethod": "pizza_local.methods.base",
    "TokenScores": "pizza_local.methods.base",
    "View": "pizza_local.view",
}

__all__ = ["LocalBackend", "LocalMethod", "TokenScores", "View"]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        from importlib import import_module

        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
