# SPDX-License-Identifier: Apache-2.0
"""Integrated gradients (Sundararajan, Taly and Yan 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pizza_local.methods.base import LocalMethod, TokenScores
from pizza_local.methods.paths import Rule, nodes
from pizza_local.view import View

_TOLERATED = 0.05
"""Completeness errors above this share of the difference are pointed out."""


class IntegratedGradients(LocalMethod):
    """``(e - b) * integral of df/de along the straight path from b to e``; signed.

    Scores of all tokens sum to ``f(e) - f(b)`` but for the error of the quadrature, which is
    reported for every row as ``completeness_error``.

    Args:
        steps: Points on the path.
        rule: ``"gauss-legendre"`` (the default), ``"riemann-left"``, ``"riemann-right"``,
            ``"riemann-middle"`` or ``"trapezoid"``.
        baseline: The absent prompt: ``"zero"``, ``"pad"``, ``"mask"``, ``"unk"``, ``"bos"``,
            ``"eos"``, ``"mean"``, a token's text or id, or an array.
        **options: As for `LocalMethod`.

    Source: Sundararajan et al. 2017, arXiv:1703.01365, equations 1 and 3.
    """

    def __init__(
        self,
        steps: int = 20,
        rule: Rule = "gauss-legendre",
        baseline: Any = "zero",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.positions, self.weights = nodes(rule, steps)
        self.rule, self.baseline = rule, baseline

    def attribute(self, view: View) -> TokenScores:
        """See `LocalMethod.attribute`."""
        start, absent = view.start(), view.baseline(self.baseline)
        alphas = torch.tensor(self.positions).to(start).view(-1, 1, 1)
        weights = torch.tensor(self.weights).to(start)
        total = average(view, absent + alphas * (start - absent), weights)
        rows = (total * (start - absent)).sum(-1)
        found = completeness(view, rows, start, absent)
        return TokenScores(
            rows=rows,
            details={
                "steps": len(weights),
                "rule": self.rule,
                "baseline": named(self.baseline),
                **found,
            },
            warnings=incomplete(found),
        )


def average(view: View, points: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the gradients at points ``(b, n_tokens, d)``: ``(r, n_tokens, d)``."""
    total: Tensor | None = None
    for chunk, _, gradients in view.gradients(points):
        part = torch.einsum("b,brnd->rnd", weights[chunk], gradients)
        total = part if total is None else total.add_(part)
    assert total is not None  # noqa: S101 - there is at least one point
    return total


def completeness(view: View, rows: Tensor, start: Tensor, absent: Tensor) -> dict[str, Any]:
    """By how much the scores miss ``f(start) - f(absent)``, per row, in the function's unit."""
    values = view.values(torch.stack([start, absent]))
    gap = values[0] - values[1]
    return {
        "difference_to_baseline": gap.double().tolist(),
        "completeness_error": (rows.sum(-1) - gap).double().tolist(),
    }


def incomplete(found: Mapping[str, Any]) -> tuple[str, ...]:
    """A warning when the whole output's scores do not add up."""
    gap, error = found["difference_to_baseline"][0], found["completeness_error"][0]
    if abs(error) <= _TOLERATED * abs(gap):
        return ()
    text = (
        f"the scores of the whole output miss the difference to the baseline ({gap:.3g}) by "
        f"{error:.2g}: use more steps, or a baseline that is nearer (mean, pad, unk)."
    )
    return (text,)


def named(baseline: Any) -> Any:
    """A baseline for the provenance."""
    if isinstance(baseline, (str, int)):
        return baseline
    return f"array of shape {tuple(getattr(baseline, 'shape', ()))}"
