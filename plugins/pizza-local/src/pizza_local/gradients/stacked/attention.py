# SPDX-License-Identifier: Apache-2.0
"""Causal attention: forwards, and backwards for a stack of cotangents that shares its weights.

Letters of shapes: b points, g key-value heads, r query heads per key-value head, i query rows,
j keys, m cotangents (targets), d features of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pizza_local.gradients.stacked.norms import at_least_fp32

# Rows of queries that are done together: short enough to leave out most of the half of the
# weights that is zero, long enough for the products to be efficient.
_BLOCK = 128


class Places(NamedTuple):
    """Ascending positions in the sequence.

    Attributes:
        tensor: ``[i]``, on the device.
        listed: The same where no device has to be waited for.
    """

    tensor: Tensor
    listed: Sequence[int]

    @classmethod
    def all(cls, length: int, device: torch.device) -> Places:
        """All positions of a sequence."""
        return cls(torch.arange(length, device=device), range(length))

    def part(self, rows: slice) -> Places:
        """Some of them."""
        return Places(self.tensor[rows], self.listed[rows])


class Heads(NamedTuple):
    """What attention keeps of the forward pass.

    Attributes:
        q: Queries, ``[b, g, r, i, d]``.
        k: Keys, ``[b, g, j, d]``.
        v: Values, ``[b, g, j, d]``.
        o: Outputs before the output projection, ``[b, g, r, i, d]``.
        at: Where the query rows are.
        scale: What scores are multiplied by.
        window: Keys that a query sees, itself included; None for all before it.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    at: Places
    scale: float
    window: int | None


def _hidden(at: Places, keys: slice, window: int | None) -> Tensor:
    queries = at.tensor[:, None]
    place = torch.arange(keys.start, keys.stop, device=queries.device)
    hidden = place > queries
    if window is not None:
        hidden |= place <= queries - window
    return hidden


def forward(
    q: Tensor, k: Tensor, v: Tensor, at: Places, scale: float, window: int | None
) -> Tensor:
    """Outputs of attention, ``[b, g, r, i, d]``; arguments as in `Heads`."""
    b, g, r, i, d = q.shape
    j = k.shape[2]
    whole = i == j and (window is None or window >= j)
    seen = None if whole else ~_hidden(at, slice(0, j), window)
    o = functional.scaled_dot_product_attention(
        q.reshape(b, g * r, i, d),
        k.unsqueeze(2).expand(b, g, r, j, d).reshape(b, g * r, j, d),
        v.unsqueeze(2).expand(b, g, r, j, d).reshape(b, g * r, j, d),
        attn_mask=seen,
        is_causal=whole,
        scale=scale,
    )
    return o.reshape(b, g, r, i, d)


def _weights(q: Tensor, k: Tensor, hidden: Tensor, scale: float) -> Tensor:
    """Attention weights in at least fp32, ``[b, g, r, i, j]``."""
    r, i = q.shape[2:4]
    scores = torch.unflatten(q.flatten(2, 3) @ k.transpose(-1, -2), 2, (r, i))
    scores = at_least_fp32(scores.mul_(scale)).masked_fill_(hidden, float("-inf"))
    return torch.softmax(scores, dim=-1)


def _pull_scores(d_weights: Tensor, mean: Tensor, weights: Tensor, scale: float) -> Tensor:
    """Cotangents of ``q k`` from those of the weights: scale * P * (dP - sum_j P dP).

    Overwrites ``weights``, and ``d_weights`` where the precision allows.
    """
    d_scores = at_least_fp32(d_weights).sub_(mean).mul_(weights.mul_(scale))
    return d_scores.to(d_weights.dtype)


def backward(heads: Heads, d_o: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cotangents of queries, keys and values; every query row has all cotangents.

    Args:
        heads: Of the forward pass.
        d_o: Cotangents of the outputs, ``[b, g, r, i, m, d]``, contiguous.

    Returns:
        ``[b, g, r, i, m, d]``, ``[b, g, m, j, d]``, ``[b, g, m, j, d]``, any strides.
    """
    b, g, r, i, m, d = d_o.shape
    q, k, v, o, at, scale, window = heads
    mean = (at_least_fp32(d_o) * at_least_fp32(o).unsqueeze(4)).sum(-1, keepdim=True)
    d_q = torch.empty_like(d_o)
    d_k = d_o.new_zeros((b, g, m, k.shape[2], d))
    d_v = d_o.new_zeros((b, g, k.shape[2], m, d))
    n_blocks = max(1, round(i / _BLOCK))
    for block in range(n_blocks):
        rows = slice(block * i // n_blocks, (block + 1) * i // n_blocks)
        first = 0 if window is None else max(0, at.listed[rows.start] - window + 1)
        keys = slice(first, at.listed[rows.stop - 1] + 1)
        n_rows, n_keys = rows.stop - rows.start, keys.stop - keys.start
        q_part, k_part, v_part = q[:, :, :, rows], k[:, :, keys], v[:, :, keys]
        g_part = d_o[:, :, :, rows].contiguous()
        hidden = _hidden(at.part(rows), keys, window)
        weights = _weights(q_part, k_part, hidden, scale)

        used = weights.to(q.dtype).flatten(2, 3).transpose(-1, -2)
        by_key = used @ g_part.reshape(b, g, r * n_rows, m * d)
        d_v[:, :, keys] += by_key.view(b, g, n_keys, m, d)

        d_weights = g_part.reshape(b, g, r * n_rows * m, d) @ v_part.transpose(-1, -2)
        d_weights = d_weights.view(b, g, r, n_rows, m, n_keys)
        d_scores = _pull_scores(d_weights, mean[:, :, :, rows], weights.unsqueeze(4), scale)
        by_query = d_scores.view(b, g, r * n_rows * m, n_keys) @ k_part
        d_q[:, :, :, rows] = by_query.view(b, g, r, n_rows, m, d)
        across = d_scores.view(b, g, r * n_rows, m * n_keys).transpose(-1, -2)
        d_k[:, :, :, keys] += (across @ q_part.flatten(2, 3)).view(b, g, m, n_keys, d)
    return d_q, d_k, d_v.transpose(2, 3)


def backward_own_rows(heads: Heads, d_o: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `backward` where query row number t has the cotangent of target t and no other.

    Args:
        heads: Of the forward pass.
        d_o: ``[b, g, r, t, d]``.

    Returns:
        ``[b, g, r, t, d]``, ``[b, g, t, j, d]``, ``[b, g, t, j, d]``.
    """
    r, t = d_o.shape[2:4]
    q, k, v, o, at, scale, window = heads
    mean = (at_least_fp32(d_o) * at_least_fp32(o)).sum(-1, keepdim=True)
    hidden = _hidden(at, slice(0, k.shape[2]), window)
    weights = _weights(q, k, hidden, scale)
    d_v = torch.einsum("bgrtj,bgrtd->bgtjd", weights.to(q.dtype), d_o)
    d_weights = torch.unflatten(d_o.flatten(2, 3) @ v.transpose(-1, -2), 2, (r, t))
    d_scores = _pull_scores(d_weights, mean, weights, scale)
    d_q = torch.unflatten(d_scores.flatten(2, 3) @ k, 2, (r, t))
    d_k = torch.einsum("bgrtj,bgrtd->bgtjd", d_scores, q)
    return d_q, d_k, d_v
