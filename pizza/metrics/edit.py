# SPDX-License-Identifier: Apache-2.0
"""How much of the text must be edited, and which output tokens are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pizza.abc import Metric
from pizza.metrics._texts import common_ends, lcs_kept

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza.completion import Completion


class EditDistance(Metric):
    """Levenshtein distance of the texts over the longer one's length, 0 to 1.

    Column 0 counts characters (code points). A token's column is 0 when the token is kept and 1
    when it is not, in an alignment of the two outputs' tokens that keeps as many as possible (a
    longest common subsequence); NaN when the perturbed completion comes without tokens.
    """

    def compare(
        self, reference: Completion, perturbed: Sequence[Completion]
    ) -> NDArray[np.float64]:
        """Effects ``(m, 1 + n_tokens)``, each within 0 to 1."""
        result = np.full((len(perturbed), 1 + len(reference.tokens)), np.nan)
        for row, completion in zip(result, perturbed, strict=True):
            longer = max(len(reference.text), len(completion.text), 1)
            row[0] = levenshtein(reference.text, completion.text) / longer
            if completion.tokens or not completion.text:
                kept = lcs_kept(reference.tokens, completion.tokens)
                row[1:] = 1.0 - np.array(kept, dtype=np.float64)
        return result


def levenshtein(first: str, second: str) -> int:
    """Fewest insertions, deletions and replacements of characters from one text to the other.

    Bit-parallel: Myers (1999), "A fast bit-vector algorithm for approximate string matching based
    on dynamic programming", in the form of Hyyrö (2003) for the distance of whole texts.

    Cost: ``len(second)`` operations on integers of ``len(first)`` bits.
    """
    start, stop = common_ends(first, second)
    first, second = first[start : len(first) - stop], second[start : len(second) - stop]
    if not first or not second:
        return len(first) + len(second)
    places: dict[str, int] = {}
    for position, character in enumerate(first):
        places[character] = places.get(character, 0) | 1 << position
    everything = (1 << len(first)) - 1
    last = 1 << (len(first) - 1)
    # Vertical differences of the table's current column, +1 and -1, as bit sets.
    up, down = everything, 0
    distance = len(first)
    for character in second:
        equal = places.get(character, 0)
        diagonal = (((equal & up) + up) ^ up) | equal | down
        right_up = down | ~(diagonal | up)
        right_down = up & diagonal
        distance += bool(right_up & last) - bool(right_down & last)
        right_up = right_up << 1 | 1
        right_down <<= 1
        up = (right_down | ~(diagonal | right_up)) & everything
        down = right_up & diagonal & everything
    return distance
