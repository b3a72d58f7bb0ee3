# SPDX-License-Identifier: Apache-2.0
"""What an adapter says about a model: its blocks, all pre-norm, attention before feed-forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pizza_local.gradients.stacked.linear import Linear
from pizza_local.gradients.stacked.mlp import Mlp
from pizza_local.gradients.stacked.norms import LayerNorm, Normed, RmsNorm


class Rope(NamedTuple):
    """Rotary position embedding as the model's own module gives it.

    Attributes:
        cos: ``[positions, head_dim]``, scaled if the model scales it.
        sin: The same.
    """

    cos: Tensor
    sin: Tensor

    def at(self, positions: Tensor) -> Rope:
        """That of some positions."""
        return Rope(self.cos[positions], self.sin[positions])

    def forward(self, x: Tensor) -> Tensor:
        """Rotate ``[..., positions, head_dim]``: the halves of a head are the pairs."""
        low, high = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat((-high, low), dim=-1) * self.sin

    def backward(self, g: Tensor) -> Tensor:
        """The transposed map, ``[..., positions, head_dim]``."""
        low, high = (g * self.sin).chunk(2, dim=-1)
        return torch.cat((high, -low), dim=-1).add_(g * self.cos)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One decoder block.

    Attributes:
        attention_norm: Before attention.
        q: Query projection, outputs ordered ``(group, head of the group, feature)``.
        k: Key projection, outputs ordered ``(group, feature)``.
        v: Value projection, as ``k``.
        qkv: The three as one product, where the model stores them so.
        q_norm: Per head, before rotation.
        k_norm: As ``q_norm``.
        out: Output projection.
        mlp_norm: Before the feed-forward network.
        mlp: The feed-forward network.
        n_groups: Key-value heads.
        n_repeats: Query heads per key-value head.
        head_dim: Features of a head.
        scale: What scores are multiplied by.
        window: Keys that a query sees, itself included; None for all before it.
    """

    attention_norm: LayerNorm | RmsNorm
    q: Linear
    k: Linear
    v: Linear
    qkv: Linear | None = None
    q_norm: RmsNorm | None = None
    k_norm: RmsNorm | None = None
    out: Linear
    mlp_norm: LayerNorm | RmsNorm
    mlp: Mlp
    n_groups: int
    n_repeats: int
    head_dim: int
    scale: float
    window: int | None = None

    @property
    def q_width(self) -> int:
        """Outputs of the query projection."""
        return self.n_groups * self.n_repeats * self.head_dim

    @property
    def kv_width(self) -> int:
        """Outputs of the key projection."""
        return self.n_groups * self.head_dim

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Columns of queries, keys and values as views."""
        values = self.q_width + self.kv_width
        return qkv[:, : self.q_width], qkv[:, self.q_width : values], qkv[:, values:]


def heads_forward(
    x: Tensor, norm: RmsNorm | None, rope: Rope | None
) -> tuple[Tensor, Normed | None]:
    """From a projection to queries or keys, ``[..., positions, head_dim]``."""
    normed = None
    if norm is not None:
        x, normed = norm.forward(x)
    return (x if rope is None else rope.forward(x)), normed


def heads_backward(
    g: Tensor, norm: RmsNorm | None, normed: Normed | None, rope: Rope | None
) -> Tensor:
    """The opposite for a stack, ``[..., targets, positions, head_dim]``."""
    if rope is not None:
        g = rope.backward(g)
    if norm is not None and normed is not None:
        g = norm.backward_heads(g.transpose(-2, -3), normed).transpose(-2, -3)
    return g


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A decoder-only language model, taken apart.

    Attributes:
        blocks: The decoder blocks.
        begin: From ``inputs_embeds`` ``[points, length, features]`` to what enters block 0.
        rope: For a hidden state, its rotary embedding; None where the model has none.
        norm: The final norm; differentiable by autograd.
        head: From there to logits.
    """

    blocks: tuple[Block, ...]
    begin: Callable[[Tensor], Tensor]
    rope: Callable[[Tensor], Rope | None]
    norm: Callable[[Tensor], Tensor]
    head: Linear
