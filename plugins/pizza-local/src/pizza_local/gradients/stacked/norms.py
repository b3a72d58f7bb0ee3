# SPDX-License-Identifier: Apache-2.0
"""LayerNorm and RMSNorm, forwards with what the way back needs, and backwards on a stack."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pizza_local.gradients.stacked.rows import Rows


class Normed(NamedTuple):
    """What one normalisation keeps, in the precision of its statistics.

    Attributes:
        unit: The normalised input before weight and bias, ``[..., features]``.
        scale: What the centred input was multiplied by, ``[..., 1]``.
    """

    unit: Tensor
    scale: Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    """The tensor in a precision that sums can be taken in."""
    return x.float() if x.dtype.itemsize < 4 else x


class LayerNorm:
    """A LayerNorm, read from its module at every use."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def forward(self, x: Tensor) -> tuple[Tensor, Normed]:
        """Normalise the last dimension."""
        wide = at_least_fp32(x)
        variance, mean = torch.var_mean(wide, dim=-1, correction=0, keepdim=True)
        scale = torch.rsqrt(variance + self._module.eps)
        unit = (wide - mean).mul_(scale)
        y = unit * self._module.weight
        if self._module.bias is not None:
            y += self._module.bias
        return y.to(x.dtype), Normed(unit, scale)

    def backward_(self, into: Tensor, g: Tensor, normed: Normed, rows: Rows) -> None:
        """Add the cotangents of the input to ``into``.

        With y = w * u + b and u = (x - mean) * s:
        dx = s * (w g - mean(w g) - u mean(u w g)), means over features (Ba, Kiros and Hinton
        2016, "Layer Normalization", differentiated).

        Args:
            into: ``[rows, features]``.
            g: Cotangents of the output, ``[rows, features]``.
            normed: Of the forward pass, ``[positions * points, features]``.
            rows: The order of the rows.
        """
        weight = self._module.weight.to(normed.unit.dtype)
        ones = torch.ones_like(normed.unit)
        _pull(into, g, normed, rows, weight, torch.stack([ones, normed.unit], dim=1))


class RmsNorm:
    """An RMSNorm, read from its module at every use.

    Statistics are taken in fp32 whatever the precision of the model, as transformers does; in an
    fp64 model this is what limits the agreement with autograd, to about 1e-7.

    Args:
        module: The module.
        offset: Gemma's weights say how much the factor differs from one; Llama's are the factor.
    """

    def __init__(self, module: Any, *, offset: bool = False) -> None:
        self._module = module
        self._offset = offset
        self._eps: float = module.eps if offset else module.variance_epsilon

    def _weight(self) -> Tensor:
        weight: Tensor = self._module.weight
        return 1.0 + weight.float() if self._offset else weight

    def forward(self, x: Tensor) -> tuple[Tensor, Normed]:
        """Normalise the last dimension."""
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self._eps)
        unit = wide * scale
        # Llama rounds before the weight, Gemma after it.
        y = unit * self._weight() if self._offset else self._weight() * unit.to(x.dtype)
        return y.to(x.dtype), Normed(unit, scale)

    def backward_(self, into: Tensor, g: Tensor, normed: Normed, rows: Rows) -> None:
        """As `LayerNorm.backward_`, without the mean: dx = s * (w g - u mean(u w g)).

        (Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", differentiated.)
        """
        normed = Normed(*(x.to(at_least_fp32(g).dtype) for x in normed))
        weight = self._weight().to(normed.unit.dtype)
        _pull(into, g, normed, rows, weight, normed.unit.unsqueeze(1))

    def backward_heads(self, g: Tensor, normed: Normed) -> Tensor:
        """Cotangents of the input of a normalisation per head.

        Args:
            g: ``[..., targets, features]``.
            normed: ``[..., features]``.
        """
        wide = at_least_fp32(g)
        unit = normed.unit.to(wide.dtype).unsqueeze(-2)
        scale = normed.scale.to(wide.dtype).unsqueeze(-2)
        weighted = wide * self._weight().to(wide.dtype)
        along = (weighted * unit).mean(-1, keepdim=True)
        return ((weighted - unit * along) * scale).to(g.dtype)


def _pull(
    into: Tensor, g: Tensor, normed: Normed, rows: Rows, weight: Tensor, basis: Tensor
) -> None:
    """``into += s * (w g - projection of w g on the basis)``.

    The projection is two small products per position, so that the stack, the only large thing
    here, is passed over three times and no more.

    Args:
        into: ``[rows, features]``.
        g: ``[rows, features]``.
        normed: ``[positions * points, features]``.
        rows: The order of the rows.
        weight: ``[features]``.
        basis: Directions without effect, each of mean square one,
            ``[positions * points, directions, features]``.
    """
    onto = (basis * (weight / weight.shape[-1])).transpose(1, 2)
    back = basis * -normed.scale.unsqueeze(-1)
    factor = normed.scale * weight
    for per_position, (target, part) in rows.parts(into, g):
        wide = part.to(basis.dtype)
        along = torch.bmm(wide, per_position(onto))
        if target.dtype == basis.dtype:
            target.baddbmm_(along, per_position(back))
            target.addcmul_(wide, per_position(factor).unsqueeze(1))
        else:
            pulled = torch.bmm(along, per_position(back))
            target.add_(pulled.addcmul_(wide, per_position(factor).unsqueeze(1)))
