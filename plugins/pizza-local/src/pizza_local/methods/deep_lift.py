# SPDX-License-Identifier: Apache-2.0
"""DeepLIFT with the rescale rule (Shrikumar, Greenside and Kundaje 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pizza.errors import ConfigError
from pizza_local.gradients.functions import Function
from pizza_local.gradients.retained import frozen
from pizza_local.methods.base import LocalMethod, TokenScores
from pizza_local.methods.integrated_gradients import completeness, incomplete, named
from pizza_local.methods.rescale import IncompleteError, Rescale, check_modules
from pizza_local.view import Side, View

_TOLERATED = 1e-4
"""Error of the sums, relative to the largest of what is summed."""

_COARSE = 5e-2
"""The same for models of half precision."""

_PANELS, _NODES = 32, 16
"""Pieces of the line between two logits, and Gauss-Legendre nodes on each."""


class DeepLift(LocalMethod):
    """``m * (x - b)``: differences from a baseline, handed back from the output to the input.

    Linear modules hand back by their weights, activations by ``(f(x) - f(b)) / (x - b)``. Scores of
    all tokens sum to ``f(x) - f(b)``.

    That rule is for models whose nonlinearities are modules of single numbers: feed-forward and
    convolutional networks, as `LocalBackend.from_features` and `LocalBackend.from_embeddings` make
    backends of. Attention, normalisation and recurrences are refused, and so is a model whose
    scores do not add up because its ``forward`` computes activations without a module.

    Functions of the logits (all but ``"logit"``) depend on all logits at once. Their multipliers
    are the mean derivatives on the straight line from the baseline's logits to the prompt's, of
    which the rescale rule is the case of one number: scores still add up. The paper explains the
    logit, before the softmax: ``function="logit"``.

    Args:
        baseline: The absent prompt, as for `IntegratedGradients`.
        **options: As for `LocalMethod`, without ``layer``: differences are handed back to the
            inputs.

    Raises:
        ConfigError: An option has a value that means nothing.

    Source: Shrikumar et al. 2017, arXiv:1704.02685, sections 3.2, 3.3 and 3.5.2; mean derivatives
    along a line: Sundararajan et al. 2017, arXiv:1703.01365, equation 1.
    """

    def __init__(self, baseline: Any = "zero", **options: Any) -> None:
        super().__init__(**options)
        if self.layer != 0:
            raise ConfigError(
                f"deep-lift hands differences back to the inputs, so its layer is 0, not "
                f"{self.layer!r}."
            )
        self.baseline = baseline

    def attribute(self, view: View) -> TokenScores:
        """See `LocalMethod.attribute`.

        Raises:
            CapabilityError: The model has parts that the rule does not cover.
        """
        network = view.subject.network
        check_modules(network.model, network.name)
        start, absent = view.start(), view.baseline(self.baseline)
        n_rows = 1 if view.level == "sequence" else 1 + view.n_outputs
        rows = start.new_zeros((n_rows, view.n_tokens))
        for side in view.sides:
            view.check()
            places = side.places.to(start.device)
            scores = _of_side(view, side, start[places], absent[places])
            if side.sign > 0:
                rows[:, places] += scores
            else:
                rows[0, places] -= scores[0]
        found = completeness(view, rows, start, absent)
        return TokenScores(
            rows=rows,
            details={"baseline": named(self.baseline), **found},
            warnings=incomplete(found),
        )


def _of_side(view: View, side: Side, point: Tensor, absent: Tensor) -> Tensor:
    """Scores ``(r, n_positions)`` of one output's rows.

    Raises:
        IncompleteError: They do not add up at the logits.
    """
    subject, function = side.subject, side.function
    assert function is not None  # noqa: S101 - `View.of` sets it
    rule = Rescale(subject.network.model, subject.network.name)
    leaf = point.detach().clone().unsqueeze(0).requires_grad_(True)
    with frozen(subject.network.model), torch.no_grad():
        with rule.recording():
            before = subject.logits(absent.unsqueeze(0))[0]
        view.counts.forward(subject.length)
        with rule.replaying(), torch.enable_grad():
            after = subject.logits(leaf)[0]
        view.counts.forward(subject.length)
    window = view.window if side.sign > 0 else None
    weights = _multipliers(_Rows(function, window, view.level), before, after.detach())
    scores, move = [], point - absent
    for number, weight in enumerate(weights):
        view.check()
        (slope,) = torch.autograd.grad(
            after, leaf, weight, retain_graph=number + 1 < len(weights), allow_unused=True
        )
        view.counts.backward(subject.length)
        score = move.new_zeros(len(move)) if slope is None else (slope[0] * move).sum(-1)
        _check_sum(subject.network.name, score, weight * (after.detach() - before))
        scores.append(score)
    return torch.stack(scores)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a side as a function of its logits.

    Attributes:
        function: Of the output.
        window: Output tokens that the whole is limited to.
        level: ``"sequence"``: only the whole.
    """

    function: Function
    window: tuple[int, int] | None
    level: str

    def of(self, logits: Tensor) -> Tensor:
        """Rows ``(b, r)`` of logits ``(b, n, vocabulary)``."""
        each = self.function.each(logits)
        start, stop = self.window or (0, each.shape[-1])
        whole = self.function.whole(each[..., start:stop]).unsqueeze(-1)
        return whole if self.level == "sequence" else torch.cat([whole, each], dim=-1)


def _multipliers(rows: _Rows, before: Tensor, after: Tensor) -> Tensor:
    """Mean derivatives of the rows between two logits ``(n, v)``: ``(r, n, v)``.

    A softmax is smooth on pieces of the line on which logits change by a few units: the quadrature
    is exact to rounding for differences up to a hundred or so.
    """
    x, w = np.polynomial.legendre.leggauss(_NODES)
    inside = (np.arange(_PANELS)[:, None] + (1 + x) / 2) / _PANELS
    alphas = torch.tensor(inside.reshape(-1)).to(after).view(-1, 1, 1)
    weights = torch.tensor(np.tile(w / 2 / _PANELS, _PANELS)).to(after)
    leaf = (before + alphas * (after - before)).requires_grad_(True)
    with torch.enable_grad():
        values = rows.of(leaf)
        found = [
            torch.autograd.grad(values[:, r], leaf, weights, retain_graph=r + 1 < values.shape[1])[
                0
            ].sum(dim=0)
            for r in range(values.shape[1])
        ]
    return torch.stack(found)


def _check_sum(name: str, scores: Tensor, parts: Tensor) -> None:
    """Scores of the tokens against differences of the logits, each times its multiplier."""
    got, wanted = float(scores.double().sum()), float(parts.double().sum())
    scale = max(float(scores.double().abs().sum()), float(parts.double().abs().sum()))
    low = scores.dtype in (torch.float16, torch.bfloat16)
    if not abs(got - wanted) <= (_COARSE if low else _TOLERATED) * scale:
        raise IncompleteError(name, got, wanted)
