# SPDX-License-Identifier: Apache-2.0
"""What methods that look at attention have in common: whose rows are made how."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pizza.abc import Findings
from pizza.errors import ConfigError
from pizza_local.gradients.problem import Level
from pizza_local.methods.base import LocalMethod, TokenScores
from pizza_local.subjects import Subject
from pizza_local.units import Aggregation
from pizza_local.view import View


class LookingMethod(LocalMethod):
    """Scores of tokens that come from what the model does, and of no function of its output.

    A row of weights belongs to each output token: those of the position that predicts it. The whole
    output's row is their mean (over the target's span, where it has one). Of a contrast it is the
    difference of the two outputs' means, and the other rows are the preferred output's.

    Args:
        aggregation: Tokens to units: ``"sum"`` (the default: the share of all weight that goes to
            the unit), ``"mean"``, ``"norm"`` or ``"max"``.
        level: ``"token"``: a row for each output token and one for the whole; ``"sequence"``: only
            the whole output. Costs the same.

    Raises:
        ConfigError: An option has a value that means nothing, or means nothing here.
    """

    signed = False

    def __init__(
        self,
        *,
        aggregation: Aggregation | None = None,
        level: Level = "token",
        function: str | None = None,
        layer: int = 0,
    ) -> None:
        name = type(self).__name__
        if function not in (None, self.explains):
            raise ConfigError(
                f"{name} explains no function of the output ({function!r}): leave out `function`."
            )
        refuse_layer(name, layer)
        super().__init__(aggregation=aggregation, level=level)

    def inspect(self, view: Any) -> Findings:
        """See `LocalMethod.inspect`."""
        found = super().inspect(view)
        # A difference of two means has a direction.
        return replace(found, signed=True) if len(view.sides) > 1 else found

    def attribute(self, view: View) -> TokenScores:
        """See `LocalMethod.attribute`."""
        rows = torch.zeros((1 + view.n_outputs, view.n_tokens), dtype=torch.float64)
        details: dict[str, Any] = {"engine": "forward"}
        for side in view.sides:
            each, more = self.weights(view, side.subject)
            each = each.detach().to("cpu", torch.float64)
            start, stop = (view.window if side.sign > 0 else None) or (0, len(each))
            rows[0, side.places] += side.sign * each[start:stop].mean(0)
            if side.sign > 0:
                rows[1:, side.places] = each
                details |= more
        return TokenScores(
            rows=rows[:1] if view.level == "sequence" else rows,
            details=details,
            warnings=_contrasted(view),
        )

    @abstractmethod
    def weights(self, view: View, subject: Subject) -> tuple[Tensor, Mapping[str, Any]]:
        """Weights ``(n_outputs, n_positions)`` of the input's tokens, and what else is known."""


def refuse_layer(name: str, layer: Any) -> None:
    """These methods have no points that could be at a layer.

    Raises:
        ConfigError: A layer was asked for.
    """
    if layer != 0:
        raise ConfigError(
            f"{name} looks at attention, not at the states of one layer: leave out layer={layer!r}."
        )


def _contrasted(view: View) -> tuple[str, ...]:
    if len(view.sides) == 1:
        return ()
    text = (
        "these weights say what the model looks at, and not what speaks for which output: the "
        "first token of both outputs of the contrast is predicted from the same position, with the "
        "same weights. Use a gradient or perturbation method, or atman, to compare two outputs."
    )
    return (text,)
