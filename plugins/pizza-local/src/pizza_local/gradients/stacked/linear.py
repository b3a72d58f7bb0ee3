# SPDX-License-Identifier: Apache-2.0
"""Linear maps and memory for their results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_FEW_ROWS = 700
_COLUMNS = 1024


class Scratch:
    """Memory that is used again from layer to layer: fresh pages cost more than the sums.

    Args:
        like: A tensor of the type and on the device of all that is taken.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._held: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of unspecified content; the one taken before under this name is lost."""
        size = 1
        for extent in shape:
            size *= extent
        held = self._held.get(name)
        if held is None or held.numel() < size:
            held = self._held[name] = self._like.new_empty(size)
        return held[:size].view(shape)


class Linear:
    """A linear map, or some of its outputs, read from its module at every use.

    Args:
        module: ``torch.nn.Linear``, or transformers' ``Conv1D``, whose weight is transposed.
        outputs: Which outputs; all by default.
    """

    def __init__(self, module: Any, outputs: slice = slice(None)) -> None:
        self._module = module
        self._outputs = outputs
        self._inputs_first = type(module).__name__ == "Conv1D"

    @property
    def weight(self) -> Tensor:
        """``[inputs, outputs]``, a view."""
        weight: Tensor = self._module.weight
        return (weight if self._inputs_first else weight.t())[:, self._outputs]

    @property
    def width(self) -> int:
        """Number of outputs."""
        return self.weight.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """``[rows, inputs]`` to ``[rows, outputs]``."""
        bias: Tensor | None = self._module.bias
        weight = self.weight
        out = x.new_empty(x.shape[0], weight.shape[1])
        for part in _parts(x, weight.shape[1]):
            if bias is None:
                torch.mm(x, weight[:, part], out=out[:, part])
            else:
                torch.addmm(bias[self._outputs][part], x, weight[:, part], out=out[:, part])
        return out

    def forward_few(self, x: Tensor) -> Tensor:
        """As `forward`, for few rows and very many outputs: a head's logits.

        With the weight as the left factor MKL splits the work over the outputs, which takes half
        the time from 8 rows to 100 (measured for 768 x 50257 on AVX2); elsewhere it is no slower.
        """
        logits = torch.mm(self.weight.t(), x.t()).t().contiguous()
        bias: Tensor | None = self._module.bias
        return logits if bias is None else logits.add_(bias)

    def backward(self, g: Tensor, out: Tensor, *, add: bool = False) -> Tensor:
        """Cotangents of the inputs, ``[rows, outputs]`` to ``[rows, inputs]``, into ``out``."""
        weight = self.weight.t()
        for part in _parts(g, weight.shape[1]):
            if add:
                out[:, part].addmm_(g, weight[:, part])
            else:
                torch.mm(g, weight[:, part], out=out[:, part])
        return out


def _parts(left: Tensor, n_columns: int) -> Iterator[slice]:
    """Columns of a product that are done together.

    On two cores MKL is up to 20 % faster with some hundred rows and a thousand columns at once
    than with three thousand; from 700 rows on it makes no difference.
    """
    few = left.device.type == "cpu" and left.shape[0] < _FEW_ROWS
    n_parts = max(1, round(n_columns / _COLUMNS)) if few else 1
    for part in range(n_parts):
        yield slice(part * n_columns // n_parts, (part + 1) * n_columns // n_parts)
