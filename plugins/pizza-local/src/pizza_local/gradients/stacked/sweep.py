# SPDX-License-Identifier: Apache-2.0
"""Layer by layer forwards, once, and layer by layer backwards with all cotangents at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pizza_local.chunks import check
from pizza_local.gradients.stacked import attention
from pizza_local.gradients.stacked.attention import Heads, Places
from pizza_local.gradients.stacked.block import (
    Block,
    Rope,
    heads_backward,
    heads_forward,
)
from pizza_local.gradients.stacked.linear import Scratch
from pizza_local.gradients.stacked.norms import Normed
from pizza_local.gradients.stacked.rows import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What one block keeps of the forward pass; rows are ``(position, point)``.

    In the last block everything but keys and values exists at the output positions only: nothing
    else of it is ever looked at.
    """

    attention_norm: Normed
    heads: Heads
    q_norm: Normed | None
    k_norm: Normed | None
    mlp_norm: Normed
    mlp: tuple[Tensor, ...]


def _split(x: Tensor, n_points: int, groups: int, repeats: int) -> Tensor:
    """``[positions * points, width]`` to ``[points, groups, repeats, positions, head_dim]``."""
    split = x.view(-1, n_points, groups, repeats, x.shape[1] // (groups * repeats))
    return split.permute(1, 2, 3, 0, 4)


def _join(x: Tensor) -> Tensor:
    """The opposite of `_split`."""
    return x.permute(3, 0, 1, 2, 4).reshape(x.shape[3] * x.shape[0], -1)


def _project(block: Block, h: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    if own is not None:
        return block.q.forward(h.index_select(0, own)), block.k.forward(h), block.v.forward(h)
    if block.qkv is None:
        return block.q.forward(h), block.k.forward(h), block.v.forward(h)
    q, k, v = block.split(block.qkv.forward(h))
    return q, k, v


def block_forward(
    block: Block, x: Tensor, n_points: int, rope: Rope | None, only: Places | None
) -> tuple[Tensor, Kept]:
    """One block.

    Args:
        block: The block.
        x: ``[positions * points, features]``.
        n_points: Points.
        rope: Of all positions.
        only: In the last block, the positions whose outputs are wanted.

    Returns:
        The outputs, at the wanted positions, and what is kept.
    """
    device = x.device
    length = x.shape[0] // n_points
    at = only or Places.all(length, device)
    own = None
    if only is not None:
        own = (only.tensor[:, None] * n_points + torch.arange(n_points, device=device)).flatten()
    h, attention_norm = block.attention_norm.forward(x)
    q, k, v = _project(block, h, own)
    groups = block.n_groups
    own_rope = rope if rope is None or only is None else rope.at(only.tensor)
    q, q_norm = heads_forward(
        _split(q, n_points, groups, block.n_repeats).contiguous(), block.q_norm, own_rope
    )
    k, k_norm = heads_forward(
        _split(k, n_points, groups, 1).squeeze(2).contiguous(), block.k_norm, rope
    )
    v = _split(v, n_points, groups, 1).squeeze(2).contiguous()
    o = attention.forward(q, k, v, at, block.scale, block.window)
    heads = Heads(q, k, v, o, at, block.scale, block.window)
    if own is not None:
        x = x.index_select(0, own)
    x = x + block.out.forward(_join(o))
    h, mlp_norm = block.mlp_norm.forward(x)
    y, mlp = block.mlp.forward(h)
    kept = Kept(
        attention_norm=attention_norm,
        heads=heads,
        q_norm=q_norm,
        k_norm=k_norm,
        mlp_norm=mlp_norm,
        mlp=mlp,
    )
    return y.add_(x), kept


def forward(
    blocks: Sequence[Block],
    x: Tensor,
    rope: Rope | None,
    positions: Places,
    stop: threading.Event | None,
) -> tuple[Tensor, list[Kept]]:
    """All blocks.

    Args:
        blocks: The blocks; none is allowed.
        x: What enters the first, ``[length, points, features]``.
        rope: Of all positions.
        positions: Where the outputs are wanted.
        stop: See `check`.

    Returns:
        What leaves the last block at ``positions``, ``[n, points, features]``, and what is kept.

    Raises:
        Stopped: The caller was cancelled.
    """
    n_points = x.shape[1]
    tape = []
    x = x.flatten(0, 1)
    for number, block in enumerate(blocks, start=1):
        check(stop)
        only = positions if number == len(blocks) else None
        x, kept = block_forward(block, x, n_points, rope, only)
        tape.append(kept)
    x = torch.unflatten(x, 0, (-1, n_points))
    return (x if tape else x[positions.tensor]), tape


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Which cotangents go down together.

    Attributes:
        rows: Their order.
        own: Which of the output positions they start from.
        apart: Each of these is a target of its own; else all are one.
        starts: Packed row of each output position and point, ``[n * points]``.
        rope: Of all positions.
        scratch: Memory for large intermediate results.
    """

    rows: Rows
    own: slice
    apart: bool
    starts: Tensor
    rope: Rope | None
    scratch: Scratch


def stack(
    positions: Places, own: slice, n_points: int, rope: Rope | None, like: Tensor, *, apart: bool
) -> Stack:
    """Prepare cotangents that start from some of the output positions."""
    at, listed = positions.part(own)
    rows = Rows(listed if apart else listed[-1:], n_points, at.device)
    targets = torch.arange(len(at), device=at.device) if apart else torch.zeros_like(at)
    starts = rows.find(at, targets)
    return Stack(rows=rows, own=own, apart=apart, starts=starts, rope=rope, scratch=Scratch(like))


def _last_backward(block: Block, kept: Kept, g: Tensor, todo: Stack) -> Tensor:
    """The last block, where cotangents exist at the output positions only.

    Args:
        block: The block.
        kept: Of its forward pass.
        g: ``[n * points, features]``; overwritten.
        todo: What goes down.

    Returns:
        ``[rows, features]``.
    """
    rows, scratch, n_points = todo.rows, todo.scratch, todo.rows.n_points
    pairs = slice(todo.own.start * n_points, todo.own.stop * n_points)
    # To these rows every kept row belongs as it is: one "position", as many "points" as rows.
    plain = Rows([0], g.shape[0], g.device)
    mlp_norm = Normed(*(x[pairs] for x in kept.mlp_norm))
    d_h = block.mlp.backward(
        g, tuple(x[pairs] for x in kept.mlp), plain, scratch, torch.empty_like(g)
    )
    block.mlp_norm.backward_(g, d_h, mlp_norm, plain)

    heads = kept.heads.part(todo.own, slice(rows.length))
    d_o = block.out.backward(g, g.new_empty(g.shape[0], block.q_width))
    d_o = _split(d_o, n_points, block.n_groups, block.n_repeats).contiguous()
    if todo.apart:
        d_q, d_k, d_v = attention.backward_own_rows(heads, d_o)
        d_q = d_q.unsqueeze(4)
    else:
        d_q, d_k, d_v = attention.backward(heads, d_o.unsqueeze(4))
    q_norm = kept.q_norm and Normed(*(x[:, :, :, todo.own] for x in kept.q_norm))
    own_rope = todo.rope and todo.rope.at(heads.at.tensor)
    d_q = heads_backward(d_q.transpose(3, 4), block.q_norm, q_norm, own_rope).squeeze(3)
    d_kv = scratch.take("qkv", rows.total, 2 * block.kv_width)
    _pack_keys(block, kept, d_k, d_v, todo, d_kv)

    d_h = block.k.backward(d_kv[:, : block.kv_width], scratch.take("h", rows.total, g.shape[1]))
    block.v.backward(d_kv[:, block.kv_width :], d_h, add=True)
    d_h.index_add_(0, todo.starts, block.q.backward(_join(d_q), torch.empty_like(g)))
    into = g.new_zeros(rows.total, g.shape[1]).index_copy_(0, todo.starts, g)
    block.attention_norm.backward_(into, d_h, kept.attention_norm, rows)
    return into


def _pack_keys(
    block: Block, kept: Kept, d_k: Tensor, d_v: Tensor, todo: Stack, into: Tensor
) -> None:
    """Cotangents of both projections, ``[points, groups, targets, positions, head_dim]`` each."""
    rows = todo.rows
    rope = todo.rope and Rope(*(x[: rows.length] for x in todo.rope))
    k_norm = kept.k_norm and Normed(*(x[:, :, : rows.length] for x in kept.k_norm))
    d_k = heads_backward(d_k, block.k_norm, k_norm, rope)
    into = torch.unflatten(into, 1, (2, block.n_groups, block.head_dim))
    rows.pack(d_k.permute(3, 0, 2, 1, 4), into[:, 0])
    rows.pack(d_v.permute(3, 0, 2, 1, 4), into[:, 1])


def _block_backward(block: Block, kept: Kept, g: Tensor, todo: Stack) -> None:
    """Any other block.

    Args:
        block: The block.
        kept: Of its forward pass.
        g: ``[rows, features]``; cotangents of the outputs, then of the inputs.
        todo: What goes down.
    """
    rows, scratch, n_points = todo.rows, todo.scratch, todo.rows.n_points
    d_h = scratch.take("h", *g.shape)
    block.mlp.backward(g, kept.mlp, rows, scratch, d_h)
    block.mlp_norm.backward_(g, d_h, kept.mlp_norm, rows)

    heads = kept.heads.part(slice(rows.length), slice(rows.length))
    shape = (block.n_groups, block.n_repeats, block.head_dim)
    packed = block.out.backward(g, scratch.take("o", rows.total, block.q_width))
    d_o = scratch.take("heads", n_points, *shape[:2], rows.length, rows.n_targets, shape[2])
    rows.unpack(torch.unflatten(packed, 1, shape), d_o.permute(3, 0, 4, 1, 2, 5))
    d_q, d_k, d_v = attention.backward(heads, d_o)

    d_qkv = scratch.take("qkv", rows.total, block.q_width + 2 * block.kv_width)
    rope = todo.rope and Rope(*(x[: rows.length] for x in todo.rope))
    q_norm = kept.q_norm and Normed(*(x[:, :, :, : rows.length] for x in kept.q_norm))
    d_q = heads_backward(d_q.transpose(3, 4), block.q_norm, q_norm, rope)
    q_out, kv_out = d_qkv[:, : block.q_width], d_qkv[:, block.q_width :]
    rows.pack(d_q.permute(4, 0, 3, 1, 2, 5), torch.unflatten(q_out, 1, shape))
    _pack_keys(block, kept, d_k, d_v, todo, kv_out)
    _project_backward(block, d_qkv, d_h)
    block.attention_norm.backward_(g, d_h, kept.attention_norm, rows)


def _project_backward(block: Block, d_qkv: Tensor, out: Tensor) -> None:
    if block.qkv is not None:
        block.qkv.backward(d_qkv, out)
        return
    d_q, d_k, d_v = block.split(d_qkv)
    block.q.backward(d_q, out)
    block.k.backward(d_k, out, add=True)
    block.v.backward(d_v, out, add=True)


def backward(
    blocks: Sequence[Block],
    tape: Sequence[Kept],
    seeds: Tensor,
    todo: Stack,
    stop: threading.Event | None,
) -> Tensor:
    """All blocks, downwards.

    Args:
        blocks: The blocks.
        tape: What they kept.
        seeds: Cotangents of what leaves the last block, ``[n, points, features]``.
        todo: What goes down.
        stop: See `check`.

    Returns:
        Cotangents of what enters the first block, ``[rows, features]``.

    Raises:
        Stopped: The caller was cancelled.
    """
    g = seeds[todo.own].flatten(0, 1)
    if not blocks:
        return g.new_zeros(todo.rows.total, g.shape[1]).index_copy_(0, todo.starts, g)
    g = _last_backward(blocks[-1], tape[-1], g.clone(), todo)
    for block, kept in zip(reversed(blocks[:-1]), reversed(tape[:-1]), strict=True):
        check(stop)
        _block_backward(block, kept, g, todo)
    return g
