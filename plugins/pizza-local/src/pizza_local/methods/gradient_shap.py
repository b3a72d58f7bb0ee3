# SPDX-License-Identifier: Apache-2.0
"""Gradient SHAP: gradients at random points between baselines and the prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pizza.errors import ConfigError
from pizza_local.methods.base import LocalMethod, TokenScores
from pizza_local.methods.blocks import gradients_at
from pizza_local.methods.integrated_gradients import named
from pizza_local.methods.smooth_grad import check_samples, check_stdev, noise, noise_unit
from pizza_local.view import View


class GradientShap(LocalMethod):
    """Mean over samples of ``(x' - b) * df/de`` at ``b + alpha (x' - b)``; signed.

    ``x'`` is the prompt with noise, ``b`` a baseline drawn from those given, ``alpha`` uniform on
    [0, 1]. Without noise its expectation is that of integrated gradients, averaged over the
    baselines: scores sum to ``f(x) - mean f(b)`` on average, and the miss of this run is reported
    as ``completeness_error``. All rows share the samples' points, which lie in embedding space.

    Args:
        samples: Random points; each costs one forward, and one backward per output token.
        stdev: Standard deviation of Gaussian noise on the tokens of units, relative to the root
            mean square of their embedding values.
        baselines: The absent prompt, as `IntegratedGradients` takes it, or a list of several.
        **options: As for `LocalMethod`.

    Raises:
        ConfigError: An option has a value that means nothing.

    Source: Lundberg and Lee 2017, arXiv:1705.07874 (expected values over a background), with the
    gradient of Sundararajan et al. 2017; expected gradients: Erion et al. 2021, arXiv:1906.10670,
    equation 3.
    """

    def __init__(
        self,
        samples: int = 5,
        stdev: float = 0.0,
        baselines: Any = "zero",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.samples = check_samples("gradient-shap", samples)
        self.stdev = check_stdev("gradient-shap", stdev)
        self.baselines: list[Any] = (
            list(baselines) if isinstance(baselines, (list, tuple)) else [baselines]
        )
        if not self.baselines:
            raise ConfigError("the list of baselines of gradient-shap is empty: give at least one.")

    def attribute(self, view: View) -> TokenScores:
        """See `LocalMethod.attribute`."""
        start, generator = view.start(), view.generator()
        absent = [view.baseline(choice) for choice in self.baselines]
        scale = self.stdev * noise_unit(view, start)
        which = torch.randint(len(absent), (self.samples,), generator=generator).tolist()
        alphas = torch.rand(self.samples, generator=generator, dtype=torch.float64).tolist()
        seeds = torch.randint(1 << 62, (self.samples,), generator=generator).tolist()

        def moves(block: range) -> Tensor:
            ends = [
                start + noise(view, start, scale, torch.Generator().manual_seed(seeds[s]))
                if scale
                else start
                for s in block
            ]
            return torch.stack([e - absent[which[s]] for s, e in zip(block, ends, strict=True)])

        def make(block: range) -> Tensor:
            weights = (
                torch.tensor([alphas[s] for s in block], dtype=torch.float64)
                .to(start)
                .view(-1, 1, 1)
            )
            return torch.stack([absent[which[s]] for s in block]) + weights * moves(block)

        each: list[Tensor] = []
        for piece in gradients_at(view, self.samples, start, make):
            move = moves(piece.indices).unsqueeze(1)
            each.extend((piece.gradients * move).sum(-1).unbind())
        samples = torch.stack(each)
        rows = samples.mean(dim=0)
        return TokenScores(
            rows=rows,
            details={
                "samples": self.samples,
                "stdev": self.stdev,
                "noise": scale,
                "baselines": [named(choice) for choice in self.baselines],
                "sampling_error": _standard_error(samples[:, 0]),
                **_balance(view, rows, start, absent, which),
            },
        )


def _standard_error(samples: Tensor) -> float | None:
    """Largest standard error of the tokens' means of ``(n_samples, n_tokens)``."""
    if len(samples) < 2 or not samples.shape[1]:
        return None
    deviation = samples.double().std(dim=0, correction=1)
    return float(deviation.max() / math.sqrt(len(samples)))


def _balance(
    view: View, rows: Tensor, start: Tensor, absent: Sequence[Tensor], drawn: Sequence[int]
) -> dict[str, list[float]]:
    """By how much the scores miss the difference to the drawn baselines' mean, per row."""
    values = view.values(torch.stack([start, *absent])).double()
    share = torch.bincount(torch.tensor(drawn), minlength=len(absent)).to(values) / len(drawn)
    gap = values[0] - share @ values[1:]
    return {
        "difference_to_baseline": gap.tolist(),
        "completeness_error": (rows.double().sum(-1) - gap).tolist(),
    }
