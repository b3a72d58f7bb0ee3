# SPDX-License-Identifier: Apache-2.0
"""One packed pass: which keys each node attends to, and what the next pass needs of them.

A pass computes a chunk of consecutive nodes of the trie. The nodes above its first node were
computed in earlier passes; their keys and values are carried over, and no others.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from pizza_local.scoring.readout import exact
from pizza_local.scoring.trie import Trie

# Queries that attend at once: bounds the mask, and the part of it that is hidden.
_QUERIES = 256


class Carried(NamedTuple):
    """Keys and values of a path from the root, ``(1, key-value heads, depth, d)``."""

    keys: torch.Tensor
    values: torch.Tensor


Path = dict[int, Carried]


class Pass:
    """Attention of one packed pass. Leaves ``before`` alone, so that a failed pass can be redone.

    Args:
        trie: The trie.
        chunk: The nodes of this pass.
        before: Per attention layer (by the id of its module), the path at the chunk's beginning.
        dense: Attend in one masked product over the chunk, instead of branch by branch. A GPU
            would spend its time on launching a kernel for each branch.
    """

    def __init__(self, trie: Trie, chunk: slice, before: Path, *, dense: bool) -> None:
        self.path: Path = {}
        self._before = before
        self._dense = dense
        self._trie = trie
        self._chunk = chunk
        self._branches = trie.branches(chunk)
        self._carried = int(trie.depths[chunk.start])
        self._deepest = max(depth + length for _, depth, length in self._branches)
        self._masks: dict[Hashable, torch.Tensor] = {}

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """Attention of one layer.

        Args:
            module: The layer.
            query: Shape ``(1, heads, N, d)``.
            key: ``(1, key-value heads, N, d)``.
            value: ``(1, key-value heads, N, d')``.
            scale: Of the scores.
            window: How many positions back a node sees, itself included; None for all.
            softcap: Bound of the scores by tanh, if any.

        Returns:
            Shape ``(1, N, heads, d')``.
        """
        work = self._by_mask if self._dense else self._by_branch
        return work(id(module), query, key, value, (scale, window, softcap))

    def _by_branch(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        how: tuple[float, int | None, float | None],
    ) -> torch.Tensor:
        scale, window, softcap = how
        path = Carried(*(self._room(layer, part, new) for part, new in enumerate((key, value))))
        out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
        for start, depth, length in self._branches:
            stop = start + length
            path.keys[:, :, depth : depth + length] = key[:, :, start:stop]
            path.values[:, :, depth : depth + length] = value[:, :, start:stop]
            for first in range(start, stop, _QUERIES):
                last = min(first + _QUERIES, stop)
                seen = depth + last - start
                hidden = max(0, depth + first - start - window + 1) if window else 0
                mask = self._staircase(last - first, seen - hidden, window, query)
                out[:, first:last] = _attention(
                    query[:, :, first:last],
                    path.keys[:, :, hidden:seen],
                    path.values[:, :, hidden:seen],
                    mask,
                    scale,
                    softcap,
                ).transpose(1, 2)
        self.path[layer] = path
        return out

    def _room(self, layer: int, part: int, new: torch.Tensor) -> torch.Tensor:
        """Keys or values from the root to the deepest node of the chunk; the carried ones in it."""
        room = new.new_empty(1, new.shape[1], self._deepest, new.shape[3])
        if self._carried:
            room[:, :, : self._carried] = self._before[layer][part][:, :, : self._carried]
        return room

    def _staircase(
        self, queries: int, keys: int, window: int | None, like: torch.Tensor
    ) -> torch.Tensor:
        """Additive mask ``(queries, keys)`` for queries that belong to the last of the keys.

        Which keys a query sees depends on their distance only, so that every mask of a pass is
        a part of the largest.
        """
        steps, width = min(_QUERIES, self._deepest), self._deepest
        kind = (window, like.dtype, like.device)
        if kind not in self._masks:
            row = torch.arange(steps, device=like.device)[:, None]
            column = torch.arange(-width, steps, device=like.device)[None, :]
            sees = column <= row
            if window is not None:
                sees &= row - column < window
            zeros = torch.zeros(steps, width + steps, dtype=like.dtype, device=like.device)
            self._masks[kind] = zeros.masked_fill_(~sees, float("-inf"))
        start = width - (keys - queries)
        return self._masks[kind][:queries, start : start + keys]

    def _by_mask(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        how: tuple[float, int | None, float | None],
    ) -> torch.Tensor:
        scale, window, softcap = how
        if self._carried:
            before = self._before[layer]
            key = torch.cat((before.keys[:, :, : self._carried], key), dim=2)
            value = torch.cat((before.values[:, :, : self._carried], value), dim=2)
        out = _attention(query, key, value, self._lineage(window, query), scale, softcap)
        last = self._chunk.stop - 1
        line = np.append(self._trie.above(last), last)
        # Columns are the carried nodes, then the chunk; the line goes on from the carried ones.
        kept = np.arange(min(self._carried, int(np.sum(line < self._chunk.start))))
        columns = np.concatenate((kept, line[len(kept) :] - self._chunk.start + self._carried))
        index = torch.from_numpy(columns).to(key.device)
        self.path[layer] = Carried(key.index_select(2, index), value.index_select(2, index))
        return out.transpose(1, 2)

    def _lineage(self, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """Additive mask ``(N, carried + N)``: which nodes are above which."""
        kind = (window, like.dtype, like.device)
        if kind not in self._masks:
            first, stop = self._chunk.start, self._chunk.stop
            rows = np.arange(first, stop)
            columns = np.concatenate((self._trie.above(first), rows))
            ends, depths = self._trie.ends[columns], self._trie.depths
            sees = (columns[None, :] <= rows[:, None]) & (rows[:, None] < ends[None, :])
            if window is not None:
                sees &= depths[rows][:, None] - depths[columns][None, :] < window
            zeros = torch.zeros(sees.shape, dtype=like.dtype, device=like.device)
            hidden = torch.from_numpy(~sees).to(like.device)
            self._masks[kind] = zeros.masked_fill_(hidden, float("-inf"))
        return self._masks[kind]


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scale: float,
    softcap: float | None,
) -> torch.Tensor:
    """Masked attention, ``(1, heads, n, d)`` on ``(1, key-value heads, m, d)``; no copies of keys.

    Query heads that share a key-value head are put side by side in a group of their own; the
    keys are seen by the whole group without being repeated in memory.
    """
    heads, shared = query.shape[1], key.shape[1]
    grouped = query.reshape(shared, heads // shared, *query.shape[2:])
    keys = key.transpose(0, 1).expand(-1, heads // shared, -1, -1)
    values = value.transpose(0, 1).expand(-1, heads // shared, -1, -1)
    if softcap is None:
        out = scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scale)
    else:
        scores = softcap * torch.tanh(grouped @ keys.transpose(2, 3) * (scale / softcap)) + mask
        weights = torch.softmax(scores, dim=-1, dtype=exact(scores.dtype)).to(scores.dtype)
        out = weights @ values
    return out.flatten(0, 1).unsqueeze(0)
