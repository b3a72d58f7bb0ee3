# SPDX-License-Identifier: Apache-2.0
"""Monotone paths from words to a baseline through other words' embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from pizza_local.subjects import Subject

Strategy = Literal["greedy", "maxcount"]

_ROWS = 8192
"""Embeddings that are compared at once."""


class Words:
    """The words of a model's vocabulary, by their embeddings.

    Special tokens are no words, nor are rows of the table that no token has.

    Args:
        subject: Embeds token ids.
        check: Called between pieces of work; leaves when nobody waits for the result.

    Raises:
        CapabilityError: The model has no token embeddings.
    """

    def __init__(self, subject: Subject, check: Callable[[], None]) -> None:
        size = len(subject.network.table)
        tokenizer = subject.network.tokenizer
        known, special = set(range(size)), set[int]()
        if tokenizer is not None:
            known &= set(tokenizer.get_vocab().values())
            special.update(tokenizer.all_special_ids)
            special.update(
                i for i, added in tokenizer.added_tokens_decoder.items() if added.special
            )
        self.ids = sorted(known - special)
        self._subject, self._check = subject, check

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Embeddings ``(len(ids), d)``, in single precision at least."""
        return _wide(self._subject.embed(ids))

    def nearest(self, ids: Sequence[int], vectors: Tensor, most: int) -> Tensor:
        """Ids of the words next to each vector, itself not counted, nearest first.

        Args:
            ids: Whose vectors they are: these ids are left out, each for its own vector.
            vectors: ``(m, d)``.
            most: How many are wanted.

        Returns:
            ``(m, k)`` ids, k = ``most`` or as many as there are; -1 where there are fewer.
        """
        own = torch.tensor(list(ids), device=vectors.device).unsqueeze(1)
        best = vectors.new_full((len(ids), most), torch.inf)
        found = own.new_full((len(ids), most), -1)
        for start in range(0, len(self.ids), _ROWS):
            self._check()
            piece = self.ids[start : start + _ROWS]
            index = torch.tensor(piece, device=vectors.device).expand(len(ids), -1)
            apart = torch.cdist(vectors, self.embed(piece))
            apart = apart.masked_fill(index == own, torch.inf)
            index = index.masked_fill(index == own, -1)
            together, both = torch.cat([best, apart], dim=1), torch.cat([found, index], dim=1)
            # Stable, so that equal distances do not depend on how the table is cut.
            order = together.sort(dim=1, stable=True).indices[:, :most]
            best, found = together.gather(1, order), both.gather(1, order)
        return found


def word_paths(
    words: Words,
    ids: Sequence[int],
    starts: Tensor,
    ends: Tensor,
    *,
    steps: int,
    strategy: Strategy,
    neighbours: int,
) -> Tensor:
    """A path for each of m tokens, from its end (the baseline) to its start (the word).

    A walk starts at the word. Of the words next to the current one, without those that it came by
    and the baseline itself, an anchor is chosen; the next point is the anchor's embedding, with
    every dimension that does not lie between the current point and the baseline replaced by the
    current point's, moved ``1 / steps`` of the way to the baseline. Then the anchor is current.
    Where no word is left the walk goes to the baseline and stays there.

    Args:
        words: The vocabulary.
        ids: The tokens, m of them.
        starts: Their embeddings ``(m, d)``.
        ends: The baselines ``(m, d)``.
        steps: Points of a path, both ends included.
        strategy: ``"greedy"`` or ``"maxcount"``.
        neighbours: Words that are looked at.

    Returns:
        ``(steps, m, d)``: row 0 the baselines, the last row the words.

    Source: Sanyal and Ren 2021, arXiv:2108.13654, section 3.2 and algorithm 1.
    """
    if not ids:
        return starts.new_zeros((steps, *starts.shape))
    # The same word on its way to the same baseline always takes the same way.
    _, kinds = torch.unique(ends, dim=0, return_inverse=True)
    keys = list(zip(ids, kinds.tolist(), strict=True))
    rows = {key: place for place, key in reversed(list(enumerate(keys)))}
    order = {key: place for place, key in enumerate(rows)}
    firsts = list(rows.values())
    index = torch.tensor([order[key] for key in keys], device=starts.device)
    current, goal = _wide(starts)[firsts], _wide(ends)[firsts]
    anchors = [word for word, _ in rows]
    anchor_vectors = current
    visited = torch.tensor(anchors, device=starts.device).unsqueeze(1)
    points = [current]
    arrived = (current == goal).all(dim=1)
    for _ in range(steps - 2):
        near = words.nearest(anchors, anchor_vectors, neighbours)
        chosen, vectors = _choose(words, near, anchor_vectors, goal, visited, steps, strategy)
        # Who finds no word goes straight to the baseline.
        arrived = arrived | (chosen < 0)
        vectors = torch.where(arrived.unsqueeze(1), goal, vectors)
        current = torch.where(arrived.unsqueeze(1), goal, monotone(vectors, goal, current, steps))
        points.append(current)
        anchors = torch.where(arrived, visited[:, 0], chosen).tolist()
        anchor_vectors = vectors
        visited = torch.cat([visited, chosen.unsqueeze(1)], dim=1)
    points.append(goal)
    path = torch.stack(points[::-1])[:, index].to(starts)
    # Rounding to a lower precision and back must not move the ends.
    path[0], path[-1] = ends, starts
    return path


def between(anchor: Tensor, goal: Tensor, current: Tensor) -> Tensor:
    """Where a dimension of the anchor lies between those of the current point and the goal."""
    low, high = torch.minimum(goal, current), torch.maximum(goal, current)
    return (low <= anchor) & (anchor <= high)


def monotone(anchor: Tensor, goal: Tensor, current: Tensor, steps: int) -> Tensor:
    """The anchor, changed where it does not lie between the current point and the goal."""
    moved = current - (current - goal) / steps
    return torch.where(between(anchor, goal, current), anchor, moved)


def _choose(
    words: Words,
    near: Tensor,
    current: Tensor,
    goal: Tensor,
    visited: Tensor,
    steps: int,
    strategy: Strategy,
) -> tuple[Tensor, Tensor]:
    """Ids ``(m,)`` of the best anchors, -1 where there is none, and their embeddings."""
    m, k = near.shape
    vectors = words.embed(near.clamp_min(0).reshape(-1).tolist()).view(m, k, -1).to(current)
    here, there = current.unsqueeze(1), goal.unsqueeze(1)
    if strategy == "greedy":
        changed = monotone(vectors, there, here, steps)
        cost = torch.linalg.vector_norm(vectors - changed, dim=-1)
    else:
        cost = -between(vectors, there, here).sum(-1).to(current)
    been = (near.unsqueeze(2) == visited.unsqueeze(1)).any(-1)
    out = been | (near < 0) | (vectors == there).all(-1)
    cost = cost.masked_fill(out, torch.inf)
    # The nearest of several that are equally good.
    order = cost.sort(dim=1, stable=True)
    place = order.indices[:, :1]
    chosen = near.gather(1, place).squeeze(1).masked_fill(order.values[:, 0].isinf(), -1)
    picked = vectors.gather(1, place.unsqueeze(-1).expand(-1, 1, vectors.shape[-1])).squeeze(1)
    return chosen, picked


def _wide(vectors: Tensor) -> Tensor:
    low = vectors.dtype in (torch.float16, torch.bfloat16)
    return vectors.float() if low else vectors
