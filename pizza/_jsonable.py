# SPDX-License-Identifier: Apache-2.0
"""Arrays and other values as JSON, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


_PLAIN = frozenset({str, int, bool, type(None)})


def number(value: float) -> float | str | None:
    """A float as JSON can hold it: NaN is null, infinities are named."""
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def numbers(values: NDArray[np.float64]) -> list[list[float | str | None]]:
    """Rows of floats as JSON can hold them."""
    return [[number(value) for value in row] for row in values.tolist()]


def array(rows: Sequence[Sequence[float | str | None]], n_columns: int) -> NDArray[np.float64]:
    """The inverse of `numbers`."""
    values = [[math.nan if v is None else float(v) for v in row] for row in rows]
    return np.array(values, dtype=float).reshape(len(rows), n_columns)


def plain(value: Any) -> Any:
    """JSON values: mappings to dicts, sets and tuples to lists, numpy to Python."""
    if type(value) in _PLAIN:
        return value
    if type(value) is dict or isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(plain(v) for v in value)
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)
