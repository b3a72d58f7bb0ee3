# SPDX-License-Identifier: Apache-2.0
"""From logits to log-probabilities, without a second table of the size of the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pizza_local.scoring.items import Item, Scored

# Elements of [rows, vocabulary] that are upcast and exponentiated at once: on a CPU, what stays in
# its caches; a GPU is slowed down by many small kernels.
_BLOCK_CPU = 1 << 19
_BLOCK_GPU = 1 << 24


def exact(dtype: torch.dtype) -> torch.dtype:
    """What log-probabilities are computed in: half precision loses them, a double keeps them."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """All target tokens of some items, one after the other, in the order of ``keys``.

    Args:
        keys: Where the state is that predicts each, ascending, ``(n,)``.
        targets: The token ids, ``(n,)``.
        places: Where each belongs in the items one after the other, ``(n,)``.
    """

    keys: NDArray[np.int64]
    targets: NDArray[np.int64]
    places: NDArray[np.int64]

    @classmethod
    def of(cls, items: Sequence[Item], keys: Sequence[NDArray[np.int64]]) -> Asked:
        """Order what items ask by where it is answered; ``keys`` has ``(T,)`` for each item."""
        flat = np.concatenate(keys)
        targets = np.concatenate([np.asarray(item.target, dtype=np.int64) for item in items])
        places = np.argsort(flat, kind="stable")
        return cls(keys=flat[places], targets=targets[places], places=places)

    def within(self, chunk: slice) -> Asked:
        """What has its keys in a chunk."""
        low, high = np.searchsorted(self.keys, [chunk.start, chunk.stop])
        return Asked(
            keys=self.keys[low:high], targets=self.targets[low:high], places=self.places[low:high]
        )


class Answers:
    """Collects log-probabilities of items.

    Args:
        items: The items.
        top: How many alternatives are wanted at each place.
    """

    def __init__(self, items: Sequence[Item], top: int) -> None:
        self._lengths = [len(item.target) for item in items]
        size = sum(self._lengths)
        self._top = top
        self._logprobs = np.empty(size)
        self._tokens = np.empty((size, top), dtype=np.int64)
        self._others = np.empty((size, top))

    def read(self, logits: torch.Tensor, rows: NDArray[np.int64], asked: Asked) -> None:
        """Take what is asked from logits.

        Args:
            logits: Shape ``(R, V)``.
            rows: The row that answers each, ``(n,)``.
            asked: What is asked, ``n`` target tokens.
        """
        if not len(rows):
            return
        n_rows, vocabulary = logits.shape
        dtype = exact(logits.dtype)
        norms, values, tokens = [], [], []
        block_size = _BLOCK_CPU if logits.device.type == "cpu" else _BLOCK_GPU
        step = max(1, block_size // vocabulary)
        for start in range(0, n_rows, step):
            block = logits[start : start + step].to(dtype)
            norms.append(torch.logsumexp(block, dim=-1))
            if self._top:
                value, token = block.topk(self._top, dim=-1)
                values.append(value - norms[-1][:, None])
                tokens.append(token)
        norm = torch.cat(norms)
        row = torch.from_numpy(rows).to(logits.device)
        target = torch.from_numpy(asked.targets).to(logits.device)
        # Rounding may put a certain token a little above probability 1.
        logprobs = (logits[row, target].to(dtype) - norm[row]).clamp(max=0.0)
        self._logprobs[asked.places] = logprobs.cpu().numpy()
        if self._top:
            self._tokens[asked.places] = torch.cat(tokens)[row].cpu().numpy()
            self._others[asked.places] = torch.cat(values)[row].clamp(max=0.0).cpu().numpy()

    def split(self) -> list[Scored]:
        """One result for each item, in their order."""
        cuts = np.cumsum(self._lengths)[:-1]
        for array in (self._logprobs, self._tokens, self._others):
            array.flags.writeable = False
        return [
            Scored(logprobs=logprobs, top_tokens=tokens, top_logprobs=others)
            for logprobs, tokens, others in zip(
                np.split(self._logprobs, cuts),
                np.split(self._tokens, cuts),
                np.split(self._others, cuts),
                strict=True,
            )
        ]
