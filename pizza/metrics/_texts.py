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


def common_ends(first: Sequence[_T], second: Sequence[_T]) -> tuple[int, int]:
    """Lengths of the common start and of the common end of the rest."""
    shorter = min(len(first), len(second))
    start = 0
    while start < shorter and first[start] == second[start]:
        start += 1
    stop = 0
    while stop < shorter - start and first[-1 - stop] == second[-1 - stop]:
        stop += 1
    return start, stop


def lcs_kept(first: Sequence[_T], second: Sequence[_T]) -> list[bool]:
    """Which items of ``first`` stand in a longest common subsequence with ``second``.

    A common start and a common end belong to one, so only what is between them is searched: the
    bit-parallel rows of `lcs_length`, kept, and walked back from the end.
    """
    start, stop = common_ends(first, second)
    inner, other = first[start : len(first) - stop], second[start : len(second) - stop]
    kept = [False] * len(inner)
    places: dict[_T, int] = {}
    for position, item in enumerate(inner):
        places[item] = places.get(item, 0) | 1 << position
    everything = row = (1 << len(inner)) - 1
    rows = [row]
    for item in other:
        matches = row & places.get(item, 0)
        row = ((row + matches) | (row - matches)) & everything
        rows.append(row)
    # A bit that is 0 marks a place where the common subsequence with other[:length] grows.
    position, length = len(inner) - 1, len(other)
    while position >= 0 and length > 0:
        if rows[length] >> position & 1:
            position -= 1
        elif rows[length - 1] >> position & 1:
            kept[position] = True
            position, length = position - 1, length - 1
        else:
            length -= 1
    return [True] * start + kept + [True] * stop
