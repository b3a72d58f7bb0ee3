# SPDX-License-Identifier: Apache-2.0
"""Sequences that begin alike, laid out so that each shared beginning is computed once.

The hidden state of a causal model at a position depends on the tokens up to it and on nothing
else. So the states that a list of sequences needs are the nodes of their prefix trie. Sorting
the sequences puts the trie into depth-first order: each sequence adds the tokens that it does not
share with the one before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pizza_local.scoring.items import Item

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trie:
    """The prefix trie of ``N`` nodes, in depth-first order.

    Args:
        tokens: The token of each node, ``(N,)``.
        depths: How many nodes are above each, ``(N,)``: its position in its sequences.
        ends: One past the last node below each, ``(N,)``: ``j`` is ``i`` or above it exactly if
            ``j <= i < ends[j]``.
        states: Per item, the nodes from which its target tokens are predicted, ``(T,)``.
    """

    tokens: Ints
    depths: Ints
    ends: Ints
    states: tuple[Ints, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def above(self, node: int) -> Ints:
        """The nodes above a node, from the root down, ``(depth,)``."""
        return np.flatnonzero(self.ends[:node] > node)

    def branches(self, chunk: slice) -> list[tuple[int, int, int]]:
        """The unbroken lines of descent in a chunk: (start in the chunk, its depth, length)."""
        depths = self.depths[chunk]
        starts = np.concatenate(([0], np.flatnonzero(np.diff(depths) != 1) + 1))
        stops = np.concatenate((starts[1:], [len(depths)]))
        return [
            (int(start), int(depths[start]), int(stop - start))
            for start, stop in zip(starts, stops, strict=True)
        ]


def _shared(one: Ints, other: Ints) -> int:
    """How many tokens two sequences have in common at the beginning."""
    short = min(len(one), len(other))
    differ = np.flatnonzero(one[:short] != other[:short])
    return int(differ[0]) if len(differ) else short


def _walk(sequences: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, Ints, int]]:
    """Sequences in sorted order: (index, tokens, how many are shared with the one before)."""
    previous = np.empty(0, dtype=np.int64)
    for index in sorted(range(len(sequences)), key=sequences.__getitem__):
        tokens = np.asarray(sequences[index], dtype=np.int64)
        yield index, tokens, _shared(previous, tokens)
        previous = tokens


def trie_size(items: Sequence[Item]) -> int:
    """Tokens that the packed engine computes: nodes of the trie of prompts with targets."""
    sequences = [item.sequence for item in items]
    return sum(len(tokens) - shared for _, tokens, shared in _walk(sequences))


def grow(items: Sequence[Item]) -> Trie:
    """Build the trie of some items.

    Args:
        items: At least one.
    """
    sequences = [item.sequence for item in items]
    path = np.empty(max(map(len, sequences)), dtype=np.int64)
    tokens: list[Ints] = []
    depths: list[Ints] = []
    closed: list[tuple[Ints, int]] = []
    states: list[Ints] = [path] * len(items)
    size = length = 0
    for index, sequence, shared in _walk(sequences):
        closed.append((path[shared:length].copy(), size))
        length = len(sequence)
        path[shared:length] = np.arange(size, size + length - shared)
        size += length - shared
        tokens.append(sequence[shared:])
        depths.append(np.arange(shared, length))
        states[index] = path[len(items[index].prompt) - 1 : length].copy()
    ends = np.full(size, size, dtype=np.int64)
    for nodes, end in closed:
        ends[nodes] = end
    return Trie(
        tokens=np.concatenate(tokens),
        depths=np.concatenate(depths),
        ends=ends,
        states=tuple(states),
    )
