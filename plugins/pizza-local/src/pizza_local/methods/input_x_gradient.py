# SPDX-License-Identifier: Apache-2.0
"""Input x gradient: the first-order effect of a token's embedding (Shrikumar et al. 2016)."""

from __future__ import annotations

from torch import Tensor

from pizza_local.methods.base import LocalMethod, TokenScores, at_the_prompt
from pizza_local.view import View

_CANCELLED = 1e-4
"""Sums below this share of their terms have cancelled."""


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
        warnings = at_the_prompt(view) or _cancelled(rows, terms)
        return TokenScores(rows=rows, warnings=warnings)


def _cancelled(rows: Tensor, terms: Tensor) -> tuple[str, ...]:
    """A warning when scores ``(r, n)`` are what rounding left of terms ``(r, n, d)``."""
    if not rows.numel():
        return ()
    size = terms.abs().sum(-1).max()
    if not size or rows.abs().max() > _CANCELLED * size:
        return ()
    text = (
        "the scores are 0 but for rounding: what is attributed here is normalised next, and "
        "scaling it changes nothing. Use saliency or integrated gradients, or another layer."
    )
    return (text,)
