# SPDX-License-Identifier: Apache-2.0
"""GPT-2: LayerNorm, learnt positions, one product for queries, keys and values, a plain MLP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pizza_local.gradients.stacked.activations import Activation, find
from pizza_local.gradients.stacked.block import Block, Network
from pizza_local.gradients.stacked.inspect import are
from pizza_local.gradients.stacked.linear import Linear
from pizza_local.gradients.stacked.mlp import Plain
from pizza_local.gradients.stacked.norms import LayerNorm

_CLASSES: dict[str, str | tuple[str, ...]] = {
    "": "GPT2Block",
    "ln_1": "LayerNorm",
    "ln_2": "LayerNorm",
    "attn": "GPT2Attention",
    "attn.c_attn": "Conv1D",
    "attn.c_proj": "Conv1D",
    "mlp": "GPT2MLP",
    "mlp.c_fc": "Conv1D",
    "mlp.c_proj": "Conv1D",
}


def take_apart(model: Any) -> Network | None:
    """The parts of a ``GPT2LMHeadModel``; None for anything else."""
    if type(model).__name__ != "GPT2LMHeadModel":
        return None
    config, body = model.config, model.transformer
    # With the last, eager attention is computed in fp32 whatever the precision of the model.
    if config.add_cross_attention or config.reorder_and_upcast_attn:
        return None
    if not are(
        {"body": body, "wpe": body.wpe, "norm": body.ln_f, "head": model.lm_head},
        {"body": "GPT2Model", "wpe": "Embedding", "norm": "LayerNorm", "head": "Linear"},
    ):
        return None
    blocks = []
    for module in body.h:
        activation = find(module.mlp.act)
        if activation is None or not are(dict(module.named_modules()), _CLASSES):
            return None
        blocks.append(_block(module, activation))

    def begin(points: Tensor) -> Tensor:
        length = points.shape[1]
        places = torch.arange(length, device=points.device)
        embedded: Tensor = body.wpe(places)
        return points + embedded

    return Network(
        blocks=tuple(blocks),
        begin=begin,
        rope=lambda _: None,
        norm=body.ln_f,
        head=Linear(model.lm_head),
    )


def _block(module: Any, activation: Activation) -> Block:
    attn, mlp = module.attn, module.mlp
    width = attn.embed_dim
    return Block(
        attention_norm=LayerNorm(module.ln_1),
        q=Linear(attn.c_attn, slice(0, width)),
        k=Linear(attn.c_attn, slice(width, 2 * width)),
        v=Linear(attn.c_attn, slice(2 * width, 3 * width)),
        qkv=Linear(attn.c_attn),
        out=Linear(attn.c_proj),
        mlp_norm=LayerNorm(module.ln_2),
        mlp=Plain(Linear(mlp.c_fc), Linear(mlp.c_proj), activation),
        n_groups=attn.num_heads,
        n_repeats=1,
        head_dim=attn.head_dim,
        scale=attn.scaling,
    )
