# SPDX-License-Identifier: Apache-2.0
"""The family of Llama: RMSNorm, rotary positions, grouped queries, a gated MLP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pizza_local.gradients.stacked.activations import Activation, find
from pizza_local.gradients.stacked.block import Block, Network, Rope
from pizza_local.gradients.stacked.inspect import are
from pizza_local.gradients.stacked.linear import Linear
from pizza_local.gradients.stacked.mlp import Gated
from pizza_local.gradients.stacked.norms import RmsNorm

_FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma")

# Fields that change what is computed, with the values under which this file is right.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "query_pre_attn_scalar": (None,),
    "use_bidirectional_attention": (None, False),
    "pretraining_tp": (None, 1),
    "partial_rotary_factor": (None, 1.0),
    "add_cross_attention": (None, False),
}


def take_apart(model: Any) -> Network | None:
    """The parts of a causal model of this family; None for anything else."""
    name = type(model).__name__
    family = name.removesuffix("ForCausalLM")
    if family == name or family not in _FAMILIES or not _is_understood(model.config):
        return None
    body = model.model
    norm = f"{family}RMSNorm"
    if not are(
        {"body": body, "rope": body.rotary_emb, "norm": body.norm, "head": model.lm_head},
        {
            "body": f"{family}Model",
            "rope": f"{family}RotaryEmbedding",
            "norm": norm,
            "head": "Linear",
        },
    ):
        return None
    blocks = []
    for module in body.layers[: model.config.num_hidden_layers]:
        activation = find(module.mlp.act_fn)
        if activation is None or not are(dict(module.named_modules()), _classes(family)):
            return None
        head_dim = module.self_attn.head_dim
        if 2 * body.rotary_emb.inv_freq.shape[-1] != head_dim:
            return None
        blocks.append(_block(module, family, activation))

    def rope(hidden: Tensor) -> Rope:
        places = torch.arange(hidden.shape[1], device=hidden.device)[None]
        cos, sin = body.rotary_emb(hidden, position_ids=places)
        return Rope(cos[0], sin[0])

    return Network(
        blocks=tuple(blocks),
        begin=lambda points: points,
        rope=rope,
        norm=body.norm,
        head=Linear(model.lm_head),
    )


def _is_understood(config: Any) -> bool:
    for field, accepted in _NEUTRAL.items():
        if getattr(config, field, None) not in accepted:
            return False
    if (config.rope_parameters or {}).get("partial_rotary_factor", 1.0) != 1.0:
        return False
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    # Only Qwen's code looks at the kinds; elsewhere they would say what is not done.
    sliding = {"sliding_attention"} if config.model_type in ("qwen2", "qwen3") else set()
    return kinds <= {"full_attention"} | sliding


def _classes(family: str) -> dict[str, str | tuple[str, ...]]:
    norm = f"{family}RMSNorm"
    classes: dict[str, str | tuple[str, ...]] = {
        "": f"{family}DecoderLayer",
        "self_attn": f"{family}Attention",
        "mlp": f"{family}MLP",
        "input_layernorm": norm,
        "post_attention_layernorm": norm,
    }
    for place in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o"):
        classes[f"{place}_proj"] = "Linear"
    for place in ("mlp.gate", "mlp.up", "mlp.down"):
        classes[f"{place}_proj"] = "Linear"
    if family == "Qwen3":
        classes["self_attn.q_norm"] = classes["self_attn.k_norm"] = norm
    return classes


def _block(module: Any, family: str, activation: Activation) -> Block:
    attn, mlp = module.self_attn, module.mlp
    gemma = family == "Gemma"
    per_head = family == "Qwen3"
    window = attn.config.sliding_window if family == "Mistral" else None
    if family in ("Qwen2", "Qwen3"):
        window = attn.sliding_window
    return Block(
        attention_norm=RmsNorm(module.input_layernorm, offset=gemma),
        q=Linear(attn.q_proj),
        k=Linear(attn.k_proj),
        v=Linear(attn.v_proj),
        q_norm=RmsNorm(attn.q_norm) if per_head else None,
        k_norm=RmsNorm(attn.k_norm) if per_head else None,
        out=Linear(attn.o_proj),
        mlp_norm=RmsNorm(module.post_attention_layernorm, offset=gemma),
        mlp=Gated(Linear(mlp.gate_proj), Linear(mlp.up_proj), Linear(mlp.down_proj), activation),
        n_groups=attn.config.num_key_value_heads,
        n_repeats=attn.num_key_value_groups,
        head_dim=attn.head_dim,
        scale=attn.scaling,
        window=window,
    )
