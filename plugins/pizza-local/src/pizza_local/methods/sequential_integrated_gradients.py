# SPDX-License-Identifier: Apache-2.0
"""Sequential integrated gradients: the path of each token by itself (Enguehard 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pizza_local.methods.base import LocalMethod, TokenScores
from pizza_local.methods.blocks import blocks, gradients_at
from pizza_local.methods.integrated_gradients import named
from pizza_local.methods.paths import Rule, nodes
from pizza_local.view import View

_TOLERATED = 0.05
"""Errors above this share of the largest difference are pointed out."""


class SequentialIntegratedGradients(LocalMethod):
    """``(e_i - b_i) * integral of df/de_i`` while only token i moves from b to e; signed.

    A token's score is ``f(x) - f(x with e_i = b_i)`` but for the error of the quadrature: what
    replacing that token by the baseline costs, the others standing as they are. The largest error
    over the tokens is reported for every row as ``completeness_error``.

    Only tokens of units are moved. ``n_tokens * steps`` points are looked at, each with a backward
    pass per output token: ``level="sequence"`` needs one per point.

    Args:
        steps: Points on each token's path.
        rule: As for `IntegratedGradients`.
        baseline: The absent token, as for `IntegratedGradients`. By default, as in the paper, a
            token that means "nothing is said": the tokenizer's mask token, else its unknown token,
            else its padding; ``"zero"`` where there are none.
        **options: As for `LocalMethod`.

    Raises:
        ConfigError: An option has a value that means nothing.

    Source: Enguehard 2023, arXiv:2305.15853, equations 3 and 4.
    """

    def __init__(
        self,
        steps: int = 20,
        rule: Rule = "gauss-legendre",
        baseline: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.positions, self.weights = nodes(rule, steps)
        self.rule, self.baseline = rule, baseline

    def attribute(self, view: View) -> TokenScores:
        """See `LocalMethod.attribute`."""
        choice = usual_baseline(view) if self.baseline is None else self.baseline
        start, absent = view.start(), view.baseline(choice)
        moved = [int(token) for token in np.flatnonzero(view.assignment.used)]
        steps = len(self.positions)
        left = torch.tensor(1 - self.positions).to(start)
        weights = torch.tensor(self.weights).to(start)
        move = start - absent

        def make(block: range) -> Tensor:
            points = start.repeat(len(block), 1, 1)
            for row, index in enumerate(block):
                token = moved[index // steps]
                points[row, token] -= left[index % steps] * move[token]
            return points

        n_rows = 1 if view.level == "sequence" else 1 + view.n_outputs
        rows = start.new_zeros((n_rows, view.n_tokens))
        for piece in gradients_at(view, len(moved) * steps, start, make):
            index = torch.tensor(list(piece.indices), device=start.device)
            tokens = torch.tensor(moved, device=start.device)[index // steps]
            own = piece.gradients[torch.arange(len(index), device=start.device), :, tokens]
            scores = (own * move[tokens].unsqueeze(1)).sum(-1)
            rows.index_add_(1, tokens, (scores * weights[index % steps].unsqueeze(1)).T.to(rows))
        gaps = _differences(view, start, absent, moved)
        found = _completeness(rows[:, moved].double(), gaps.to(rows.device))
        return TokenScores(
            rows=rows,
            details={"steps": steps, "rule": self.rule, "baseline": named(choice), **found},
            warnings=_incomplete(found),
        )


def usual_baseline(view: View) -> str:
    """The mask token of the tokenizer, else its unknown token, else its padding, else ``"zero"``.

    Which of them there is decides, not the model: decoders have no mask.
    """
    tokenizer = view.subject.network.tokenizer
    for name in ("mask", "unk", "pad"):
        if getattr(tokenizer, f"{name}_token_id", None) is not None:
            return name
    return "zero"


def _differences(view: View, start: Tensor, absent: Tensor, moved: list[int]) -> Tensor:
    """``f(x) - f(x with e_i = b_i)`` of every moved token, ``(r, n_moved)``."""
    whole = view.values(start.unsqueeze(0)).double()
    found = []
    for block in blocks(start, len(moved)):
        points = start.repeat(len(block), 1, 1)
        for row, index in enumerate(block):
            points[row, moved[index]] = absent[moved[index]]
        found.append(whole - view.values(points).double())
    return torch.cat(found).T if found else whole.new_zeros((whole.shape[1], 0))


def _completeness(scores: Tensor, gaps: Tensor) -> dict[str, Any]:
    """Largest difference and largest error over the tokens, per row; both ``(r, n_moved)``."""
    if not scores.shape[1]:
        nothing = [0.0] * len(scores)
        return {"largest_difference": nothing, "completeness_error": nothing}
    return {
        "largest_difference": gaps.abs().amax(dim=1).tolist(),
        "completeness_error": (scores - gaps).abs().amax(dim=1).tolist(),
    }


def _incomplete(found: dict[str, Any]) -> tuple[str, ...]:
    largest, error = found["largest_difference"][0], found["completeness_error"][0]
    if error <= _TOLERATED * largest:
        return ()
    text = (
        f"a token's score misses what replacing it changes by {error:.2g} (the largest change is "
        f"{largest:.3g}): use more steps."
    )
    return (text,)
