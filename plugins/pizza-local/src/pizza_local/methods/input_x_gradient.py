# SPDX-License-Identifier: Apache-2.0
"""Input x gradient: the first-order effect of a token's embedding (Shrikumar et al. 2016)."""

from __future__ import annotations

from pizza_local.methods.base import LocalMethod, TokenScores, at_the_prompt, cancelled
from pizza_local.view import View


class InputXGradient(LocalMethod):
    """``sum_d e_d df/de_d``: what a linear model would lose without the token; signed.

    Source: Shrikumar et al. 2016, arXiv:1605.01713, section 2.
    """

    def attribute(self, view: View) -> TokenScores:
        """See `LocalMethod.attribute`."""
        start = view.start()
        ((_, _, gradients),) = view.gradients(start.unsqueeze(0))
        terms = gradients[0] * start
        rows = terms.sum(-1)
        warnings = at_the_prompt(view) or cancelled(rows, terms)
        return TokenScores(rows=rows, warnings=warnings)
