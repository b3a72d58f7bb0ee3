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
        first: Position of the first key.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    at: Places
    scale: float
    window: int | None
    first: int = 0

    def keys(self, rows: slice) -> slice:
        """Keys that some of the query rows see."""
        first = 0 if self.window is None else self.at.listed[rows.start] - self.window + 1
        return slice(max(0, first), self.at.listed[rows.stop - 1] + 1)

    def part(self, rows: slice, keys: slice) -> Heads:
        """Some query rows and some keys."""
        return self._replace(
            q=self.q[:, :, :, rows],
            k=self.k[:, :, keys],
            v=self.v[:, :, keys],
            o=self.o[:, :, :, rows],
            at=self.at.part(rows),
            first=self.first + (keys.start or 0),
        )


def _hidden(at: Places, first: int, n_keys: int, window: int | None) -> Tensor:
    queries = at.tensor[:, None]
    place = torch.arange(first, first + n_keys, device=queries.device)
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
    seen = None if whole else ~_hidden(at, 0, j, window)
    o = functional.scaled_dot_product_attention(
        q.reshape(b, g * r, i, d),
        k.unsqueeze(2).expand(b, g, r, j, d).reshape(b, g * r, j, d),
        v.unsqueeze(2).expand(b, g, r, j, d).reshape(b, g * r, j, d),
        attn_mask=seen,
        is_causal=whole,
        scale=scale,
    )
    return o.reshape(b, g, r, i, d)


def _weights(heads: Heads) -> Tensor:
    """Attention weights in at least fp32, ``[b, g, r, i, j]``."""
    q, k = heads.q, heads.k
    hidden = _hidden(heads.at, heads.first, k.shape[2], heads.window)
    # Fused attention does not round scores either, and there is one set of them for all targets.
    products = at_least_fp32(q).flatten(2, 3) @ at_least_fp32(k).transpose(-1, -2)
    scores = torch.unflatten(products.mul_(heads.scale), 2, q.shape[2:4])
    scores.masked_fill_(hidden, float("-inf"))
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
    b, g, _, i, m, d = d_o.shape
    length = heads.k.shape[2]
    n_blocks = max(1, round(i / _BLOCK))
    if n_blocks == 1:
        keys = heads.keys(slice(0, i))
        if keys == slice(0, length):
            return _rows_backward(heads, d_o)
    d_q = torch.empty_like(d_o)
    d_k = d_o.new_zeros((b, g, m, length, d))
    d_v = d_o.new_zeros((b, g, m, length, d))
    for block in range(n_blocks):
        rows = slice(block * i // n_blocks, (block + 1) * i // n_blocks)
        keys = heads.keys(rows)
        part = heads.part(rows, keys)
        d_q[:, :, :, rows], of_k, of_v = _rows_backward(part, d_o[:, :, :, rows].contiguous())
        d_k[:, :, :, keys] += of_k
        d_v[:, :, :, keys] += of_v
    return d_q, d_k, d_v


def _rows_backward(heads: Heads, d_o: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `backward`, all query rows and all keys at once."""
    b, g, r, i, m, d = d_o.shape
    q, k, v, o = heads[:4]
    j = k.shape[2]
    mean = (at_least_fp32(d_o) * at_least_fp32(o).unsqueeze(4)).sum(-1, keepdim=True)
    weights = _weights(heads)
    used = weights.to(q.dtype).flatten(2, 3).transpose(-1, -2)
    d_v = (used @ d_o.view(b, g, r * i, m * d)).view(b, g, j, m, d).transpose(2, 3)
    d_weights = (d_o.view(b, g, r * i * m, d) @ v.transpose(-1, -2)).view(b, g, r, i, m, j)
    d_scores = _pull_scores(d_weights, mean, weights.unsqueeze(4), heads.scale)
    d_q = (d_scores.view(b, g, r * i * m, j) @ k).view(d_o.shape)
    across = d_scores.view(b, g, r * i, m * j).transpose(-1, -2)
    d_k = (across @ q.flatten(2, 3)).view(b, g, m, j, d)
    return d_q, d_k, d_v


def backward_own_rows(heads: Heads, d_o: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `backward` where query row number t has the cotangent of target t and no other.

    Args:
        heads: Of the forward pass.
        d_o: ``[b, g, r, t, d]``.

    Returns:
        ``[b, g, r, t, d]``, ``[b, g, t, j, d]``, ``[b, g, t, j, d]``.
    """
    r, t = d_o.shape[2:4]
    q, k, v, o = heads[:4]
    mean = (at_least_fp32(d_o) * at_least_fp32(o)).sum(-1, keepdim=True)
    weights = _weights(heads)
    d_v = torch.einsum("bgrtj,bgrtd->bgtjd", weights.to(q.dtype), d_o)
    d_weights = torch.unflatten(d_o.flatten(2, 3) @ v.transpose(-1, -2), 2, (r, t))
    d_scores = _pull_scores(d_weights, mean, weights, heads.scale)
    d_q = torch.unflatten(d_scores.flatten(2, 3) @ k, 2, (r, t))
    d_k = torch.einsum("bgrtj,bgrtd->bgtjd", d_scores, q)
    return d_q, d_k, d_v
