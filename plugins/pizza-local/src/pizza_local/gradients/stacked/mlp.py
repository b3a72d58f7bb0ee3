# SPDX-License-Identifier: Apache-2.0
"""The two feed-forward networks of decoder blocks, forwards and backwards on a stack."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from pizza_local.gradients.stacked.activations import Activation, with_derivative
from pizza_local.gradients.stacked.linear import Linear, Scratch
from pizza_local.gradients.stacked.rows import Rows


class Mlp(Protocol):
    """A feed-forward network.

    Attributes:
        kept: Numbers that the forward pass keeps per position.
        wide: Numbers that the backward pass needs per row of the stack.
    """

    @property
    def kept(self) -> int:  # noqa: D102 - above
        ...

    @property
    def wide(self) -> int:  # noqa: D102 - above
        ...

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """``[positions * points, features]`` to the same and what is kept."""

    def backward(
        self, g: Tensor, kept: tuple[Tensor, ...], rows: Rows, scratch: Scratch, out: Tensor
    ) -> Tensor:
        """Cotangents of the input, ``[rows, features]``, into ``out``."""


class Plain:
    """down(act(up(x))): GPT-2's."""

    def __init__(self, up: Linear, down: Linear, activation: Activation) -> None:
        self._up, self._down, self._activation = up, down, activation
        self.kept = self.wide = up.width

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `Mlp`."""
        y, slope = with_derivative(self._activation, self._up.forward(x))
        return self._down.forward(y), (slope,)

    def backward(
        self, g: Tensor, kept: tuple[Tensor, ...], rows: Rows, scratch: Scratch, out: Tensor
    ) -> Tensor:
        """See `Mlp`."""
        (slope,) = kept
        inner = self._down.backward(g, scratch.take("mlp", rows.total, self._up.width))
        for per_position, (part,) in rows.parts(inner):
            part.mul_(per_position(slope).unsqueeze(1))
        return self._up.backward(inner, out)


class Gated:
    """down(act(gate(x)) * up(x)): Llama's (Shazeer 2020, "GLU Variants Improve Transformer")."""

    def __init__(self, gate: Linear, up: Linear, down: Linear, activation: Activation) -> None:
        self._gate, self._up, self._down, self._activation = gate, up, down, activation
        self.kept = self.wide = 2 * up.width

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `Mlp`."""
        opened, slope = with_derivative(self._activation, self._gate.forward(x))
        up = self._up.forward(x)
        return self._down.forward(opened * up), (slope.mul_(up), opened)

    def backward(
        self, g: Tensor, kept: tuple[Tensor, ...], rows: Rows, scratch: Scratch, out: Tensor
    ) -> Tensor:
        """See `Mlp`."""
        of_gate, of_up = kept
        inner = self._down.backward(g, scratch.take("mlp", rows.total, self._up.width))
        gate = scratch.take("gate", rows.total, self._up.width)
        for per_position, (part, gate_part) in rows.parts(inner, gate):
            torch.mul(part, per_position(of_gate).unsqueeze(1), out=gate_part)
            part.mul_(per_position(of_up).unsqueeze(1))
        self._gate.backward(gate, out)
        return self._up.backward(inner, out, add=True)
