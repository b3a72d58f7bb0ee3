# SPDX-License-Identifier: Apache-2.0
"""What all methods of this package have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pizza.abc import Findings, InternalsMethod
from pizza.errors import CapabilityError, ConfigError
from pizza_local.gradients.functions import check_name
from pizza_local.gradients.problem import Level
from pizza_local.units import Aggregation, check_aggregation
from pizza_local.view import View

_CANCELLED = 1e-4
"""Sums below this share of their terms have cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenScores:
    """What a method computed.

    Attributes:
        rows: ``(r, n_tokens)``: row 0 the whole output, rows 1 to ``n_outputs`` its tokens; at
            level ``"sequence"`` there is only row 0.
        details: What else should be known; plain JSON values.
        warnings: What a reader of the scores should know.
    """

    rows: Tensor | NDArray[np.floating[Any]]
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()


class LocalMethod(InternalsMethod):
    """A method that scores the tokens of a view; units get the aggregate of their tokens.

    Args:
        function: What is explained: ``"logprob"`` (nats), ``"prob"``, ``"logit"``, ``"entropy"``
            (nats) or ``"kl"`` (to the unperturbed distribution, negative, nats).
        aggregation: Tokens to units: ``"sum"``, ``"mean"``, ``"norm"`` or ``"max"``; ``None``:
            what fits the method's token scores.
        level: ``"token"``: a row for each output token and one for the whole. ``"sequence"``: only
            the whole output, which is as many times cheaper as the output has tokens.
        layer: Where the attribution is made: 0 = input embeddings, k = what leaves block k,
            -1 = what leaves the last block.

    Raises:
        ConfigError: An option has a value that means nothing.
    """

    default_aggregation: ClassVar[Aggregation] = "sum"

    signed = True
    """Whether scores have a direction; false for norms and weights."""

    explains: ClassVar[str | None] = None
    """What the scores are about, where that is not a function of the output."""

    def __init__(
        self,
        *,
        function: str = "logprob",
        aggregation: Aggregation | None = None,
        level: Level = "token",
        layer: int = 0,
    ) -> None:
        self.function = check_name(function)
        self.aggregation = check_aggregation(aggregation or self.default_aggregation)
        if level not in ("token", "sequence"):
            raise ConfigError(f"the level is 'token' or 'sequence', not {level!r}.")
        self.level: Level = level
        self.layer = layer

    def inspect(self, view: Any) -> Findings:
        """See `InternalsMethod.inspect`.

        Raises:
            CapabilityError: The view is another backend's.
        """
        chosen = local(view, self).of(self.function, level=self.level).at(self.layer)
        found = self.attribute(chosen)
        findings = chosen.findings(
            found.rows,
            aggregation=self.aggregation,
            details=found.details,
            warnings=found.warnings,
            function=self.explains,
        )
        return replace(findings, signed=self.signed)

    @abstractmethod
    def attribute(self, view: View) -> TokenScores:
        """Scores of the view's tokens."""


def local(view: Any, method: InternalsMethod) -> View:
    """A view, if it is one of this package's.

    Raises:
        CapabilityError: It is another backend's.
    """
    if isinstance(view, View):
        return view
    raise CapabilityError(
        f"{type(method).__name__} works on models of the backend 'local', not on "
        f"{type(view).__name__}.",
        needed="gradients",
        backend=type(view).__name__,
    )


def at_the_prompt(view: View) -> tuple[str, ...]:
    """A warning for methods that look only at the prompt itself."""
    if view.function_name != "kl":
        return ()
    flat = (
        "the divergence from the unperturbed distribution is smallest at the prompt itself, so its "
        "gradient there is 0: integrated-gradients and other methods that leave the prompt can "
        "explain it."
    )
    return (flat,)


def cancelled(rows: Tensor, terms: Tensor) -> tuple[str, ...]:
    """A warning when signed scores ``(r, n)`` are what rounding left of terms ``(r, n, d)``.

    What is normalised next can be scaled (by layer normalisation also shifted) without any effect,
    so sums over its dimensions vanish.
    """
    if not rows.numel():
        return ()
    size = terms.abs().sum(-1).max()
    if not size or rows.abs().max() > _CANCELLED * size:
        return ()
    text = (
        "the scores are 0 but for rounding: the model normalises what is attributed here, and that "
        "takes these sums out. Use a norm (saliency), integrated gradients or another layer."
    )
    return (text,)
