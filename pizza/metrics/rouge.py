# SPDX-License-Identifier: Apache-2.0
"""Words in common, in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pizza.abc import Metric
from pizza.metrics._texts import lcs_length, whole_only, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza.completion import Completion


class RougeL(Metric):
    """1 minus the ROUGE-L F1 score of the two texts' words, 0 to 1.

    Lin (2004), "ROUGE: a package for automatic evaluation of summaries", section 3, with recall
    and precision weighted equally; without stemming. Words are runs of letters and digits, case
    folded; a Chinese character is a word. Two texts without words are compared as they are. Token
    columns are NaN (`EditDistance` says which tokens are kept).
    """

    def compare(
        self, reference: Completion, perturbed: Sequence[Completion]
    ) -> NDArray[np.float64]:
        """Effects ``(m, 1 + n_tokens)``: column 0 within 0 to 1, NaN for the tokens."""
        ours = words(reference.text)
        effects = []
        for completion in perturbed:
            theirs = words(completion.text)
            if not ours and not theirs:
                effects.append(float(completion.text.strip() != reference.text.strip()))
                continue
            common = lcs_length(ours, theirs)
            effects.append(1.0 - 2.0 * common / (len(ours) + len(theirs)))
        return whole_only(effects, reference)
