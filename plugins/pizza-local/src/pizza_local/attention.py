# SPDX-License-Identifier: Apache-2.0
"""Which function answers the attention of a model, for the time of one call.

A model of transformers asks a registry for its attention function, by the name in its config.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def attention_by(name: str, model: nn.Module) -> Iterator[None]:
    """Let the function of that name answer every layer, inside of the block only.

    What the user chose is put back afterwards, whatever happens. The public setter does not restore
    configs in configs that differ, and warns; the attribute that the layers read does neither.
    """
    configs = _configs(model)
    before = [config._attn_implementation_internal for config in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, chosen in zip(configs, before, strict=True):
            config._attn_implementation_internal = chosen


def _configs(model: nn.Module) -> list[Any]:
    """Every config that a part of the model reads the name of its attention from."""
    found = {
        id(config): config
        for module in model.modules()
        if hasattr(config := getattr(module, "config", None), "_attn_implementation_internal")
    }
    return list(found.values())
