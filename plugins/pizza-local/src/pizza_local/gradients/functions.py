# SPDX-License-Identifier: Apache-2.0
"""The scalars of the output that can be explained: `Function` and its kinds.

At every output position the model gives logits over its vocabulary. A function makes one number of
them (``each``); the whole output has one number too, and ``weights`` says how it changes with each
of the positions' numbers, so that gradients of the positions add up to the gradient of the whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pizza.errors import ConfigError


class Function(Protocol):
    """One number per output position, differentiable by autograd."""

    def each(self, logits: Tensor) -> Tensor:
        """Logits ``(..., n, vocabulary)`` to values ``(..., n)``."""
        ...

    def weights(self, each: Tensor) -> Tensor:
        """Derivative of the whole output's value by each position's, ``(..., n)``; detached."""
        ...

    def whole(self, each: Tensor) -> Tensor:
        """Values ``(..., n)`` to the whole output's ``(...)``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sum(ABC):
    """Functions whose whole is the sum over the positions.

    Attributes:
        targets: Token id at every output position, ``(n,)``.
        reference: Log-probabilities with the unperturbed prompt ``(n, vocabulary)``, for functions
            that compare with them.
    """

    targets: Tensor
    reference: Tensor | None = None

    def weights(self, each: Tensor) -> Tensor:
        """See `Function.weights`."""
        return torch.ones_like(each)

    def whole(self, each: Tensor) -> Tensor:
        """See `Function.whole`."""
        return each.sum(-1)

    @abstractmethod
    def each(self, logits: Tensor) -> Tensor:
        """See `Function.each`."""

    def _picked(self, values: Tensor) -> Tensor:
        index = self.targets.to(values.device).expand(values.shape[:-1]).unsqueeze(-1)
        return values.gather(-1, index).squeeze(-1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogProb(_Sum):
    """``ln p(target)``, nats. Whole: log-probability of the output, their sum."""

    def each(self, logits: Tensor) -> Tensor:
        """See `Function.each`."""
        # Not log_softmax: only one entry of each row is wanted.
        return self._picked(logits) - logits.logsumexp(-1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Logit(_Sum):
    """The target token's logit. Whole: their sum."""

    def each(self, logits: Tensor) -> Tensor:
        """See `Function.each`."""
        return self._picked(logits)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prob(_Sum):
    """``p(target)``. Whole: probability of the output, their product."""

    def each(self, logits: Tensor) -> Tensor:
        """See `Function.each`."""
        return (self._picked(logits) - logits.logsumexp(-1)).exp()

    def weights(self, each: Tensor) -> Tensor:
        """See `Function.weights`."""
        logs = each.detach().clamp_min(torch.finfo(each.dtype).tiny).log()
        # The product of the others, also where one of them is nearly zero.
        return (logs.sum(-1, keepdim=True) - logs).exp()

    def whole(self, each: Tensor) -> Tensor:
        """See `Function.whole`."""
        return each.prod(-1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entropy(_Sum):
    """Entropy of the distribution, nats: positive = the unit makes the model less sure."""

    def each(self, logits: Tensor) -> Tensor:
        """See `Function.each`."""
        logs = logits.log_softmax(-1)
        return -(logs.exp() * logs).sum(-1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NegativeKL(_Sum):
    """``-KL(p(. | prompt) || p(. | changed prompt))``, nats.

    Positive = the unit keeps the output distribution as it is. At the prompt itself it is 0 and so
    is its gradient: methods that look at other points than the prompt (integrated gradients and its
    kin) are the ones that can explain it.
    """

    def each(self, logits: Tensor) -> Tensor:
        """See `Function.each`."""
        assert self.reference is not None  # noqa: S101 - `make` computes it
        reference = self.reference.to(logits)
        return (reference.exp() * (logits.log_softmax(-1) - reference)).sum(-1)


FUNCTIONS: dict[str, type[_Sum]] = {
    "logprob": LogProb,
    "prob": Prob,
    "logit": Logit,
    "entropy": Entropy,
    "kl": NegativeKL,
}


def check_name(name: str) -> str:
    """The name of a function, checked.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in FUNCTIONS:
        raise ConfigError(
            f"there is no function {name!r} of the output to explain; there are "
            f"{', '.join(FUNCTIONS)}."
        )
    return name


def make(name: str, targets: Tensor, logits: Callable[[], Tensor]) -> Function:
    """A function by name.

    Args:
        name: A key of `FUNCTIONS`.
        targets: Token id at every output position, ``(n,)``.
        logits: Gives the unperturbed prompt's logits ``(n, vocabulary)``; called only when the
            function compares with them.
    """
    kind = FUNCTIONS[check_name(name)]
    if kind is NegativeKL:
        return NegativeKL(targets=targets, reference=logits().detach().log_softmax(-1))
    return kind(targets=targets)
