# SPDX-License-Identifier: Apache-2.0
"""Discretized integrated gradients: paths through real words (Sanyal and Ren 2021)."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from pizza.errors import ConfigError
from pizza_local.methods.base import LocalMethod, TokenScores
from pizza_local.methods.blocks import gradients_at
from pizza_local.methods.integrated_gradients import completeness, incomplete, named
from pizza_local.methods.sequential_integrated_gradients import usual_baseline
from pizza_local.methods.word_paths import Strategy, Words, word_paths
from pizza_local.view import View


class DiscretizedIntegratedGradients(LocalMethod):
    """``sum_k df/dx at x^(k) * (x^(k+1) - x^(k))`` along points that are near words; signed.

    Every token walks from its own embedding to the baseline's from word to word, each time to one
    of the nearest words, whose embedding is made monotone: no dimension moves away from the
    baseline. At step k all tokens stand at their k-th point. Scores of all tokens sum to
    ``f(x) - f(b)`` but for the error of the coarse path, reported as ``completeness_error``.

    Args:
        steps: Points on the path, both ends included.
        strategy: Which of the neighbours is walked to: ``"greedy"``: the one that has to be changed
            least to be monotone. ``"maxcount"``: the one with most monotone dimensions.
        neighbours: How many of the nearest words are looked at; special tokens are none.
        baseline: As for `SequentialIntegratedGradients`.
        **options: As for `LocalMethod`, without ``layer``: words are embeddings.

    Raises:
        ConfigError: An option has a value that means nothing.

    Source: Sanyal and Ren 2021, arXiv:2108.13654, equation 3 and section 3.2.
    """

    def __init__(
        self,
        steps: int = 30,
        strategy: Strategy = "greedy",
        neighbours: int = 50,
        baseline: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        who = "discretized-integrated-gradients"
        for name, value, least in (("steps", steps, 2), ("neighbours", neighbours, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(
                    f"{name} of {who} is a whole number from {least} on, not {value!r}."
                )
        if strategy not in get_args(Strategy):
            raise ConfigError(
                f"the strategy of {who} is {', '.join(get_args(Strategy))}, not {strategy!r}."
            )
        if self.layer != 0:
            raise ConfigError(
                f"{who} walks through word embeddings, so its layer is 0, not {self.layer!r}."
            )
        self.steps, self.strategy, self.neighbours = steps, strategy, neighbours
        self.baseline = baseline

    def attribute(self, view: View) -> TokenScores:
        """See `LocalMethod.attribute`."""
        choice = usual_baseline(view) if self.baseline is None else self.baseline
        start, absent = view.start(), view.baseline(choice)
        moved = np.flatnonzero(view.assignment.used)
        tokens = torch.from_numpy(moved).to(start.device)
        walks = word_paths(
            Words(view.subject, view.check),
            [view.tokens[int(token)].id for token in moved],
            start[tokens],
            absent[tokens],
            steps=self.steps,
            strategy=self.strategy,
            neighbours=self.neighbours,
        )

        def make(block: range) -> Tensor:
            points = start.repeat(len(block), 1, 1)
            points[:, tokens] = walks[block.start : block.stop]
            return points

        n_rows = 1 if view.level == "sequence" else 1 + view.n_outputs
        rows = start.new_zeros((n_rows, view.n_tokens))
        # The last point is where the path ends: no step leaves it.
        for piece in gradients_at(view, self.steps - 1, start, make):
            first, last = piece.indices.start, piece.indices.stop
            step = walks[first + 1 : last + 1] - walks[first:last]
            own = piece.gradients[:, :, tokens]
            rows[:, tokens] += torch.einsum("brmd,bmd->rm", own, step).to(rows)
        found = completeness(view, rows, start, absent)
        return TokenScores(
            rows=rows,
            details={
                "steps": self.steps,
                "strategy": self.strategy,
                "neighbours": self.neighbours,
                "baseline": named(choice),
                **found,
            },
            warnings=incomplete(found),
        )
