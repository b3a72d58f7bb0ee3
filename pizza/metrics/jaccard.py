# SPDX-License-Identifier: Apache-2.0
"""Words in common, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pizza.abc import Metric
from pizza.metrics._texts import whole_only, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza.completion import Completion


class Jaccard(Metric):
    """1 minus the Jaccard similarity of the two texts' sets of words, 0 to 1.

    Words are runs of letters and digits, case folded; a Chinese character is a word. Two texts
    without words are compared as they are. Token columns are NaN.
    """

    def compare(
        self, reference: Completion, perturbed: Sequence[Completion]
    ) -> NDArray[np.float64]:
        """Effects ``(m, 1 + n_tokens)``: column 0 within 0 to 1, NaN for the tokens."""
        ours = set(words(reference.text))
        effects = []
        for completion in perturbed:
            theirs = set(words(completion.text))
            if ours or theirs:
                effects.append(1.0 - len(ours & theirs) / len(ours | theirs))
            else:
                effects.append(float(completion.text.strip() != reference.text.strip()))
        return whole_only(effects, reference)
