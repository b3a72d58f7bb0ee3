# SPDX-License-Identifier: Apache-2.0
"""Which message, paragraph and sentence each unit is in."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pizza.prompt import Prompt, Unit
from pizza.segmenters.paragraphs import paragraph_spans
from pizza.segmenters.sentences import sentence_spans


def groups(prompt: Prompt, units: Sequence[Unit]) -> NDArray[np.int64]:
    """The numbers of each unit's message, paragraph and sentence.

    Paragraphs and sentences are counted through the whole prompt, so two units are in the same
    one exactly when their numbers agree, and numbers never fall from one unit to the next. A unit
    that spans several belongs to the one that it starts in.

    Args:
        prompt: The prompt that the units were cut from.
        units: Its units, in order.

    Returns:
        ``(n_units, 3)`` int64: message, paragraph, sentence.
    """
    result = np.zeros((len(units), 3), dtype=np.int64)
    starts = [
        ([start for start, _ in paragraph_spans(m.text)], [s for s, _ in sentence_spans(m.text)])
        for m in prompt.messages
    ]
    offsets = np.zeros((len(starts) + 1, 2), dtype=np.int64)
    offsets[1:] = np.cumsum([[len(a), len(b)] for a, b in starts], axis=0)
    for row, unit in enumerate(units):
        paragraphs, sentences = starts[unit.message]
        # A unit may start with white space that precedes the first paragraph: count it in.
        result[row] = (
            unit.message,
            offsets[unit.message, 0] + max(0, bisect.bisect_right(paragraphs, unit.start) - 1),
            offsets[unit.message, 1] + max(0, bisect.bisect_right(sentences, unit.start) - 1),
        )
    return result
