# SPDX-License-Identifier: Apache-2.0
"""The rescale rule: activations hand differences back instead of derivatives.

Nothing global and nothing left behind: hooks live on the module for one forward pass each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pizza.errors import CapabilityError

LINEAR: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
    nn.Embedding,
)
"""Modules that are linear (in evaluation mode): derivatives hand differences back by themselves."""

ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Tanh,
    nn.Hardtanh,
    nn.Sigmoid,
    nn.LogSigmoid,
    nn.Softplus,
    nn.Softsign,
)
"""Modules that work on each number by itself."""

_INSTEAD = (
    "Use integrated-gradients or gradient-shap, which work on any differentiable model and add up "
    "as well."
)

# Below this the quotient of two differences is rounding: the derivative is its limit.
_SMALL = {torch.float64: 1e-10}
_SMALL_ELSE = 1e-6


def check_modules(model: nn.Module, name: str) -> None:
    """Refuse a model with parts that the rule does not cover.

    Raises:
        CapabilityError: The first of them is named.
    """
    for path, module in model.named_modules():
        attends = isinstance(module, nn.MultiheadAttention)
        leaf = next(module.children(), None) is None
        if not attends and (not leaf or isinstance(module, LINEAR + ACTIVATIONS)):
            continue
        raise CapabilityError(
            f"deep-lift cannot hand differences back through {type(module).__name__} "
            f"({path or 'the model itself'} of {name}): the rescale rule covers linear modules and "
            f"activations of single numbers. {_INSTEAD}",
            needed="gradients",
            backend=name,
        )


class IncompleteError(CapabilityError):
    """The differences did not add up: the model has steps that are no modules."""

    def __init__(self, name: str, got: float, wanted: float) -> None:
        super().__init__(
            f"deep-lift's scores add up to {got:.6g} and not to the difference {wanted:.6g} that "
            f"{name} makes of the baseline: its forward() has steps that are no modules (a "
            "functional activation, a product, a maximum), through which the rule cannot hand "
            "differences back. Make its activations modules (torch.nn.ReLU, ...), each used in the "
            f"same order for every input, or another method. {_INSTEAD}",
            needed="gradients",
            backend=name,
        )


class Rescale:
    """Runs a module on a baseline, then on an input, with multipliers in place of derivatives.

    Args:
        model: The module; see `check_modules`.
        name: For messages.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        self._model, self._name = model, name
        self._seen: list[tuple[nn.Module, Tensor, Tensor]] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Remember what every activation makes of the baseline, while this is open."""

        def record(module: nn.Module, given: Tensor, output: Tensor) -> Tensor:
            self._seen.append((module, given.detach(), output.detach()))
            return output

        self._seen.clear()
        with self._hooked(record):
            yield

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Give every activation its multiplier as derivative, while this is open."""
        calls = iter(self._seen)

        def rescale(module: nn.Module, given: Tensor, output: Tensor) -> Tensor:
            before = next(calls, None)
            if before is None or before[0] is not module or before[1].shape != given.shape:
                raise CapabilityError(
                    f"{self._name} runs its activations in another order, or on other shapes, for "
                    f"the baseline than for the prompt: deep-lift cannot pair them. {_INSTEAD}",
                    needed="gradients",
                    backend=self._name,
                )
            slope = multiplier(module, given, output, before[1], before[2])
            # The value of the output, with the multiplier as its derivative.
            return output.detach() + slope * (given - given.detach())

        with self._hooked(rescale):
            yield

    @contextmanager
    def _hooked(self, work: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> Iterator[None]:
        # An activation that works in place would change its input: it gets a copy.
        waiting: dict[nn.Module, Tensor] = {}

        def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            waiting[module] = args[0]
            return (args[0].clone(), *args[1:])

        def after(module: nn.Module, _: tuple[Any, ...], output: Tensor) -> Tensor:
            return work(module, waiting.pop(module), output)

        handles = []
        try:
            for module in self._model.modules():
                if isinstance(module, ACTIVATIONS):
                    handles.append(module.register_forward_pre_hook(before))
                    handles.append(module.register_forward_hook(after))
            yield
        finally:
            for handle in handles:
                handle.remove()


def multiplier(
    module: nn.Module, given: Tensor, output: Tensor, given_before: Tensor, output_before: Tensor
) -> Tensor:
    """``(f(x) - f(b)) / (x - b)`` of each number; the derivative where x and b are the same.

    Source: Shrikumar et al. 2017, arXiv:1704.02685, equation 5 and section 3.5.2.
    """
    apart = (given - given_before).detach()
    near = apart.abs() < _SMALL.get(apart.dtype, _SMALL_ELSE)
    slope = (output.detach() - output_before) / torch.where(near, torch.ones_like(apart), apart)
    if not bool(near.any()):
        return slope
    with torch.enable_grad():
        leaf = given.detach().clone().requires_grad_(True)
        # Not a call of the module: that would run the hooks again. A copy, for those in place.
        value = module.forward(leaf.clone())
        (derivative,) = torch.autograd.grad(value.sum(), leaf)
    return torch.where(near, derivative, slope)
