# SPDX-License-Identifier: Apache-2.0
"""Coalitions: which units are **present** (True = kept).

A set of coalitions is a bool array ``(n_coalitions, n_units)``; one is a row of it. The word
"mask" is never used: its polarity differs from library to library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pizza.errors import PluginContractError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def without_each(n_units: int) -> NDArray[np.bool_]:
    """All coalitions that lack exactly one unit, ``(n_units, n_units)``; row i lacks unit i."""
    return ~np.eye(n_units, dtype=bool)


def check(coalitions: Any, n_units: int, *, who: str) -> NDArray[np.bool_]:
    """``coalitions`` if it is a bool array ``(m, n_units)``.

    Raises:
        PluginContractError: It is anything else; ``who`` is named.
    """
    if not isinstance(coalitions, np.ndarray) or coalitions.dtype != np.bool_:
        raise PluginContractError(f"{who} must yield a numpy bool array, not {coalitions!r}.")
    if coalitions.ndim != 2 or coalitions.shape[1] != n_units:
        raise PluginContractError(
            f"{who} yielded coalitions of shape {coalitions.shape}; expected (m, {n_units})."
        )
    return coalitions


def keys(coalitions: NDArray[np.bool_]) -> list[bytes]:
    """The `key` of every row."""
    return [row.tobytes() for row in np.packbits(coalitions, axis=1)]


def key(coalition: NDArray[np.bool_]) -> bytes:
    """A hashable key of one coalition: its bits, packed."""
    return np.packbits(coalition).tobytes()
