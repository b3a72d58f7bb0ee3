# SPDX-License-Identifier: Apache-2.0
"""Names that are imported on first use, so that ``import pizza`` costs nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy(
    module: str, names: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` for ``module``; ``names`` says where each name lives."""

    def getattribute(name: str) -> Any:
        home = names.get(name)
        if home is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        found = importlib.import_module(home)
        return found if home == f"{module}.{name}" else getattr(found, name)

    def listing() -> list[str]:
        return sorted(names)

    return getattribute, listing
