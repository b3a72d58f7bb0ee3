# SPDX-License-Identifier: Apache-2.0
"""What the metrics of written text share: words, and results without token columns."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import regex  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza.completion import Completion

# Letters, digits and marks; a Chinese character is a word, as no spaces part them.
_WORD = regex.compile(r"\p{Han}|(?:(?!\p{Han})[\w\p{M}])+")

_T = TypeVar("_T", bound=Hashable)


def words(text: str) -> list[str]:
    """The words of a text, case folded, without punctuation."""
    found: list[str] = _WORD.findall(text.casefold())
    return found


def whole_only(effects: Sequence[float], reference: Completion) -> NDArray[np.float64]:
    """``(m, 1 + n_tokens)`` with the effects in column 0 and NaN in the token columns."""
    result = np.full((len(effects), 1 + len(reference.tokens)), np.nan)
    result[:, 0] = effects
    return result


def lcs_length(first: Sequence[_T], second: Sequence[_T]) -> int:
    """Length of the longest common subsequence.

    Bit-parallel, one row of the table per step: Hyyrö (2004), "Bit-parallel LCS-length
    computation revisited", in the form ``V = (V + (V & M)) | (V & ~M)``.

    Cost: ``len(second)`` operations on integers of ``len(first)`` bits.
    """
    places: dict[_T, int] = {}
    for position, item in enumerate(first):
        places[item] = places.get(item, 0) | 1 << position
    everything = (1 << len(first)) - 1
    row = everything
    for item in second:
        matches = row & places.get(item, 0)
        row = ((row + matches) | (row - matches)) & everything
    return len(first) - row.bit_count()
