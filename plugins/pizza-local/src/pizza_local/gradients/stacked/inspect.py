# SPDX-License-Identifier: Apache-2.0
"""Whether a model is what its class says: dense weights in one place and nothing put between."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def is_plain(model: Any) -> bool:
    """Whether reading the weights gives all that the model computes.

    Not so with weights that are quantised, sharded, offloaded or of several precisions, with
    hooks, with a replaced ``forward``, and while dropout is on.
    """
    if model.training or getattr(model, "hf_quantizer", None) is not None:
        return False
    kinds = set()
    for weight in model.parameters():
        if type(weight) not in (nn.Parameter, Tensor) or weight.layout is not torch.strided:
            return False
        kinds.add((weight.dtype, weight.device))
    if len(kinds) != 1:
        return False
    dtype, device = kinds.pop()
    if dtype not in _FLOATS or device.type == "meta":
        return False
    return not any(_is_touched(module) for module in model.modules())


def _is_touched(module: nn.Module) -> bool:
    if "forward" in vars(module):
        return True
    hooks = [
        *module._forward_hooks.values(),
        *module._forward_pre_hooks.values(),
        *module._backward_hooks.values(),
        *module._backward_pre_hooks.values(),
    ]
    # transformers leaves hooks behind that listen and change nothing.
    return any(hook.__module__ != "transformers.utils.output_capturing" for hook in hooks)


def are(modules: dict[str, Any], names: dict[str, str | tuple[str, ...]]) -> bool:
    """Whether modules are of exactly these classes, by name: subclasses may compute other things.

    Args:
        modules: Modules by their place.
        names: Names of classes that are accepted there.
    """
    for place, accepted in names.items():
        name = type(modules[place]).__name__
        if name not in ((accepted,) if isinstance(accepted, str) else accepted):
            return False
    return True
