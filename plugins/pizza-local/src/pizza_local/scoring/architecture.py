# SPDX-License-Identifier: Apache-2.0
"""What the engines must know of a model before they run it."""

from __future__ import annotations

import inspect
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import torch

# Rotary frequencies of these depend on the longest sequence of a pass.
_BY_LENGTH = ("dynamic", "longrope")
_ATTENTION = ("full_attention", "sliding_attention")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Architecture:
    """Facts about a decoder-only model.

    Args:
        takes_positions: ``forward`` takes ``position_ids``.
        keeps_logits: ``forward`` takes the ``logits_to_keep`` of a tensor.
        by_length: What a token computes depends on how long the sequences of its batch are.
        obstacle: Why sequences cannot be packed, as far as can be seen from outside; or None.
        device: Where the token ids go.
        token_bytes: Memory of the activations of one token in a pass, without logits, bytes.
        state_bytes: Memory of the keys and values of one token in all layers, bytes.
        logits_bytes: Memory of the logits of one token, bytes.
    """

    takes_positions: bool
    keeps_logits: bool
    by_length: bool
    obstacle: str | None
    device: torch.device
    token_bytes: int
    state_bytes: int
    logits_bytes: int

    @classmethod
    def of(cls, model: Any) -> Architecture:
        """Look at a model."""
        config = model.config.get_text_config(decoder=True)
        accepted = inspect.signature(model.forward).parameters
        weight = model.get_input_embeddings().weight
        by_length = bool(_rope_types(config).intersection(_BY_LENGTH))
        # An index on the first device does not select rows on the last.
        sharded = len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1
        vocabulary = int(getattr(config, "vocab_size", weight.shape[0]))
        return cls(
            takes_positions="position_ids" in accepted,
            keeps_logits="logits_to_keep" in accepted and not sharded,
            by_length=by_length,
            obstacle=_obstacle(model, config, accepted, by_length),
            device=weight.device,
            token_bytes=_token_bytes(config, weight),
            state_bytes=_state_bytes(config, weight),
            # The head's own, and a copy in single precision while it is read.
            logits_bytes=vocabulary * (weight.element_size() + 4),
        )


def _obstacle(model: Any, config: Any, accepted: Container[str], by_length: bool) -> str | None:
    if "position_ids" not in accepted:
        return "its forward has no position_ids"
    if not getattr(model, "_supports_attention_backend", False):
        return "its attention cannot be replaced"
    if getattr(config, "is_causal", True) is False:
        return "its attention is not causal"
    if getattr(config, "alibi", False):
        return "its attention has a bias by distance (ALiBi)"
    kinds = set(getattr(config, "layer_types", None) or ()).difference(_ATTENTION)
    if kinds:
        return f"it has layers of the type {', '.join(sorted(kinds))}"
    if by_length:
        return "its rotary frequencies depend on the length of the sequence"
    return None


def _rope_types(config: Any) -> set[str]:
    """Every kind of rotary embedding that a config names, nested by layer type or not."""
    found: set[str] = set()
    pending = [getattr(config, name, None) for name in ("rope_parameters", "rope_scaling")]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value.values())
            found.update(str(value[key]) for key in ("rope_type", "type") if key in value)
    return found


def _token_bytes(config: Any, weight: torch.Tensor) -> int:
    """One layer at a time: what surrounds attention, and the wide middle of the feed-forward."""
    hidden = int(getattr(config, "hidden_size", weight.shape[1]))
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    return (8 * hidden + 4 * inner) * weight.element_size()


def _state_bytes(config: Any, weight: torch.Tensor) -> int:
    hidden = int(getattr(config, "hidden_size", weight.shape[1]))
    layers = int(getattr(config, "num_hidden_layers", 1))
    heads = int(getattr(config, "num_attention_heads", None) or 1)
    shared = int(getattr(config, "num_key_value_heads", None) or heads)
    each = int(getattr(config, "head_dim", None) or hidden // heads)
    return 2 * layers * shared * each * weight.element_size()
