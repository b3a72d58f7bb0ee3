# SPDX-License-Identifier: Apache-2.0
"""Where the output is read off, and the parts of a model between which attention passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pizza_local.attending.replaced import Role, UnknownAttentionError
from pizza_local.subjects import (
    CausalSubject,
    EncoderDecoderSubject,
    EncoderSubject,
    Subject,
)


def readers(subject: Subject) -> Tensor:
    """Positions whose states the outputs are read from, ``(n_outputs,)`` long.

    Of the decoder in an encoder-decoder, else of the input: for a decoder the position before each
    output token, for a model that fills masks the masks, for a classifier the position that its
    head reads (the last one of decoders, else the first).

    Raises:
        UnknownAttentionError: There is no such position.
    """
    if isinstance(subject, CausalSubject):
        return subject.positions
    if isinstance(subject, EncoderDecoderSubject):
        return torch.arange(len(subject.targets), device=subject.targets.device)
    transformer(subject)
    assert isinstance(subject, EncoderSubject)  # noqa: S101 - the last kind of transformer
    model, who = subject.network.model, subject.network.name
    if subject.masks is not None:
        return subject.masks
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnknownAttentionError(f"{who} is a classifier with an encoder and a decoder.", who)
    if getattr(model.config, "classifier_pooling", "cls") == "mean":
        raise UnknownAttentionError(
            f"the head of {who} reads the mean of all positions, so the output is read from no "
            "single one.",
            who,
        )
    last = len(subject.tokens) - 1 if _reads_last(model) else 0
    return torch.tensor([last], device=subject.targets.device)


def transformer(subject: Subject) -> None:
    """Refuse what has no attention.

    Raises:
        UnknownAttentionError: The model is a plain module.
    """
    if not isinstance(subject, (CausalSubject, EncoderDecoderSubject, EncoderSubject)):
        who = subject.network.name
        raise UnknownAttentionError(f"{who} is not a transformer of transformers.", who)


def complete(subject: Subject, n_attentions: int, what: str) -> None:
    """Refuse to look at a part of the layers where the method is about all of them.

    Args:
        subject: The input.
        n_attentions: How many attentions among the input's tokens took part.
        what: What the method does, for the message.

    Raises:
        UnknownAttentionError: Some layers, or all, did not.
    """
    n, who = max(1, len(subject.network.blocks)), subject.network.name
    if n_attentions < n:
        raise UnknownAttentionError(
            f"{what} is about every layer, and of the {n} layers of {who} {n_attentions} use the "
            "attention interface of transformers.",
            who,
        )


def _reads_last(model: Any) -> bool:
    """Whether a classifier is a decoder, whose last position alone has seen everything."""
    # Families with attention of their own kind do not say that it is causal; their head has a name.
    return hasattr(model, "score") or any(
        getattr(module, "is_causal", False) for module in model.modules()
    )


def mixing(subject: Subject) -> tuple[Role, tuple[nn.Module, ...], nn.Module]:
    """What takes from the input's tokens to the positions that the output is read from.

    Returns:
        The attention that does; the blocks that it is in, in order; the module that holds the
        blocks and the norm after them, whose output is a ``last_hidden_state``.

    Raises:
        UnknownAttentionError: The blocks were not found.
    """
    model, who = subject.network.model, subject.network.name
    role: Role = "input"
    blocks = subject.network.blocks
    if isinstance(subject, EncoderDecoderSubject):
        role, blocks = "cross", _decoder_blocks(model)
    holders = [
        module
        for module in model.modules()
        if blocks
        and hasattr(module, "get_input_embeddings")
        and module is not model
        # Lists of children would be enough for most, but encoders are nested.
        and any(child is blocks[0] for child in module.modules())
    ]
    if not holders:
        raise UnknownAttentionError(f"the layers of {who} were not found.", who)
    return role, blocks, holders[-1]


def _decoder_blocks(model: Any) -> tuple[nn.Module, ...]:
    config = model.config
    wanted = getattr(config, "num_decoder_layers", None) or getattr(config, "decoder_layers", None)
    for module in model.get_decoder().modules():
        if (
            isinstance(module, nn.ModuleList)
            and len(module) == wanted
            and len({type(child) for child in module}) == 1
        ):
            return tuple(module)
    return ()


def row_bytes(subject: Subject) -> int:
    """Memory that one copy of the input takes on its way through the network, bytes."""
    config, n = subject.network.model.config, subject.length
    size = subject.network.table.element_size()
    heads = int(getattr(config, "num_attention_heads", None) or 16)
    outputs = 3 * len(subject.targets) * subject.network.vocabulary
    # Scores before and after the softmax, twice for what is added to them.
    return size * (40 * n * subject.network.table.shape[-1] + 5 * heads * n * n + outputs)
