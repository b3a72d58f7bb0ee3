# SPDX-License-Identifier: Apache-2.0
"""Attention among the nodes of a trie: each node sees itself and the nodes above it.

A model of transformers asks a registry for its attention function, by the name in its config. So
it runs unmodified: for one forward pass the name is changed to ours, and put back afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from transformers import AttentionInterface, AttentionMaskInterface

from pizza_local.attention import attention_by

if TYPE_CHECKING:
    import torch

    from pizza_local.scoring.branches import Pass

_NAME = "pizza_packed"
_running: ContextVar[Pass | None] = ContextVar("pizza_packed_pass", default=None)

# Keywords that change what attention computes, in ways that packing does not know.
_UNKNOWN = ("s_aux", "sinks", "position_bias", "alibi", "head_mask", "cache", "indices")


class NotPackableError(Exception):
    """The model asks its attention for something that packed scoring cannot do."""


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """What a layer calls; shapes ``(1, heads, N, d)`` to ``(1, N, heads, d)``."""
    running = _running.get()
    if running is None:
        raise NotPackableError("packed attention was called outside of a packed pass")
    unknown = [name for name in _UNKNOWN if others.get(name) is not None]
    if attention_mask is not None:
        unknown.append("attention_mask")
    if others.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        unknown.append("is_causal=False")
    if query.shape[0] != 1 or query.shape[2] != key.shape[2] or key.shape[2] != value.shape[2]:
        unknown.append(f"queries {tuple(query.shape)} on keys {tuple(key.shape)}")
    if unknown:
        raise NotPackableError(f"{type(module).__name__} passes {', '.join(unknown)}")
    _agree_on_window(module, sliding_window)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return running.attend(module, query, key, value, scale, sliding_window, softcap), None


def _agree_on_window(module: torch.nn.Module, window: int | None) -> None:
    """Refuse a layer whose window is known to its mask only, which packing never sees."""
    config: Any = getattr(module, "config", None)
    kinds = getattr(config, "layer_types", None)
    layer = getattr(module, "layer_idx", None)
    if kinds is not None and layer is not None:
        slides = kinds[layer] == "sliding_attention"
    else:
        slides = getattr(config, "sliding_window", None) is not None
    if slides != (window is not None):
        raise NotPackableError(
            f"{type(module).__name__} of layer {layer} passes sliding_window={window}, "
            f"its config says {'a' if slides else 'no'} window"
        )


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The mask is implied by the trie."""


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, _no_mask)


@contextmanager
def packed(model: torch.nn.Module, running: Pass) -> Iterator[None]:
    """Let the layers of a model attend within a trie, inside of the block only."""
    token = _running.set(running)
    try:
        with attention_by(_NAME, model):
            yield
    finally:
        _running.reset(token)
