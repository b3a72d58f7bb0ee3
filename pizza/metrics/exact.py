# SPDX-License-Identifier: Apache-2.0
"""Whether the model writes the same text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pizza.abc import Metric
from pizza.metrics._texts import whole_only

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza.completion import Completion


class ExactMatch(Metric):
    """0 when the perturbed output is the reference's text, 1 when it is another.

    White space at the two ends is not compared. Token columns are NaN: a token has no exact match
    of its own (`EditDistance` says which tokens are kept).
    """

    def compare(
        self, reference: Completion, perturbed: Sequence[Completion]
    ) -> NDArray[np.float64]:
        """Effects ``(m, 1 + n_tokens)``: 0 or 1, and NaN for the tokens."""
        wanted = reference.text.strip()
        effects = [float(other.text.strip() != wanted) for other in perturbed]
        return whole_only(effects, reference)
