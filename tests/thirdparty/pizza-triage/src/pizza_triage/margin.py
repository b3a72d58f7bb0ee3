# SPDX-License-Identifier: Apache-2.0
"""The metric: how close the runner-up came."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pizza.abc import Metric
from pizza.errors import IncomparableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza.completion import Completion


class Margin(Metric):
    """The margin is a token's log-probability minus that of the best other token.

    The effect is the margin in the reference minus the margin of the same token in the perturbed
    completion: 0 = as far ahead as before, positive = the lead shrank, and beyond the reference's
    margin another token leads. The whole output is the sum over its tokens.
    """

    def compare(
        self, reference: Completion, perturbed: Sequence[Completion]
    ) -> NDArray[np.float64]:
        """Effects ``(len(perturbed), 1 + n_output_tokens)``, nats."""
        if reference.alternative_tokens is None:
            raise IncomparableError("margin needs the alternatives of every output token.")
        n_tokens = len(reference.tokens)
        effects = np.full((len(perturbed), 1 + n_tokens), np.nan)
        for row, completion in enumerate(perturbed):
            for position in range(min(n_tokens, len(completion.tokens))):
                token = reference.tokens[position]
                before = _margin(reference, position, token)
                effects[row, 1 + position] = before - _margin(completion, position, token)
                if completion.tokens[position] != token:
                    break  # what follows answers another beginning
            effects[row, 0] = np.nansum(effects[row, 1:])
        return effects


def _margin(completion: Completion, position: int, token: str) -> float:
    known = completion.distribution(position)
    others = [value for text, value in known.items() if text != token]
    least = min(known.values())
    # A token that is not among the alternatives is less likely than the least of them.
    return known.get(token, least) - max(others, default=-math.inf if token not in known else least)
