# SPDX-License-Identifier: Apache-2.0
"""Which options can be given to workers on other machines, and what is said of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from pizza.errors import ConfigError
from pizza.specs import Choice

_PLAIN = (str, bytes, int, float, bool, type(None), PurePath)


def travels(value: Any) -> bool:
    """Whether a value means the same in another process on another machine."""
    if isinstance(value, _PLAIN):
        return True
    if isinstance(value, Choice):
        return travels(value.options)
    if isinstance(value, Mapping):
        return all(travels(k) and travels(v) for k, v in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(travels, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        ours = type(value).__module__.partition(".")[0] == "pizza"
        return ours and all(travels(getattr(value, f.name)) for f in dataclasses.fields(value))
    return False


def check_travels(what: str, value: Any, instead: str) -> None:
    """Refuse what cannot be given to a worker.

    Args:
        what: The option's name.
        value: Its value.
        instead: What to give instead.

    Raises:
        ConfigError: It cannot.
    """
    if not travels(value):
        kind = "a function" if callable(value) and not isinstance(value, type) else None
        raise ConfigError(
            f"{what} is {kind or f'an object of {type(value).__module__}'} "
            f"({type(value).__qualname__}), which cannot be given to workers on other machines: "
            f"{instead}."
        )
