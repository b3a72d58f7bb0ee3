# SPDX-License-Identifier: Apache-2.0
"""Scores many sequences that begin alike, with a causal language model."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from pizza_local.chunks import Chunks, Stopped, is_out_of_memory
from pizza_local.counts import Counts
from pizza_local.scoring.architecture import Architecture
from pizza_local.scoring.items import Item, Scored
from pizza_local.scoring.packed import best_packing, score_packed
from pizza_local.scoring.padded import score_padded

_log = logging.getLogger("pizza.local")

Engine = Literal["packed", "padded"]


class CausalScorer:
    """Teacher-forced scoring of targets after prompts; belongs to one opened model.

    The packed engine computes each node of the prefix trie once. It is compared with the padded
    one on a few short sequences before it is used for the first time; a model that it does not
    serve exactly is scored with the padded engine.

    Args:
        model: A decoder-only model of transformers, in eval mode. One thread uses it at a time.
        chunks: Sizes that fit in memory.
    """

    def __init__(self, model: Any, chunks: Chunks) -> None:
        self._model = model
        self._chunks = chunks
        self._architecture = Architecture.of(model)
        self._engine: Engine = "packed" if self._architecture.obstacle is None else "padded"
        self._checked = self._engine == "padded"

    @property
    def engine(self) -> Engine:
        """Which engine scores; before the first use, which one is planned."""
        return self._engine

    def score(
        self,
        items: Sequence[Item],
        *,
        top: int = 0,
        counts: Counts,
        stop: threading.Event | None = None,
    ) -> list[Scored]:
        """Score each item; what it scores does not depend on the others.

        Args:
            items: What to score. Whether it fits the model's context is the caller's to check.
            top: How many of the most likely tokens are wanted at each place; at most as many as
                the vocabulary has.
            counts: Gets the passes and tokens. The packed engine computes exactly
                `trie_size` tokens; the check before its first use is not counted.
            stop: Set when the caller has gone.

        Returns:
            One result for each item, in their order.

        Raises:
            Stopped: The caller has gone.
            torch.OutOfMemoryError: Not even the smallest chunk fits.
            ValueError: ``top`` is out of range.
        """
        vocabulary = self._model.get_input_embeddings().weight.shape[0]
        if not 0 <= top <= vocabulary:
            raise ValueError(
                f"top={top}; it is from 0 to {vocabulary}, the size of the vocabulary."
            )
        if not items:
            return []
        if not self._checked:
            self._check(items, stop)
        score = score_packed if self._engine == "packed" else score_padded
        return score(self._model, self._architecture, self._chunks, items, top, counts, stop)

    def _check(self, items: Sequence[Item], stop: threading.Event | None) -> None:
        """Compare the engines, once; keep the packed one if they agree."""
        sample = _sample(items)
        work = (self._model, self._architecture, self._chunks, sample, 0, Counts(), stop)
        padded = np.concatenate([one.logprobs for one in score_padded(*work)])
        # A pass must end within a sequence, so that what is carried over is compared as well.
        packing = replace(best_packing(self._architecture), most=len(sample[0].sequence) // 2 + 1)
        try:
            packed = np.concatenate([one.logprobs for one in score_packed(*work, packing)])
        except Stopped:
            raise
        except Exception as failure:
            if is_out_of_memory(failure):
                raise
            self._fall_back(f"{type(failure).__name__}: {failure}")
        else:
            difference, allowed = _difference(packed, padded, self._rounding())
            # Not a number is not close either.
            if not difference <= allowed:
                self._fall_back(f"log-probabilities differ by {difference:.2g}")
        self._checked = True

    def _rounding(self) -> torch.dtype:
        """The least precise type that a forward pass goes through."""
        dtype: torch.dtype = self._model.get_input_embeddings().weight.dtype
        # Eager attention puts its weights into single precision, whatever the model has.
        config = self._model.config.get_text_config(decoder=True)
        eager = getattr(config, "_attn_implementation", None) == "eager"
        return torch.float32 if eager and dtype == torch.float64 else dtype

    def _fall_back(self, reason: str) -> None:
        self._engine = "padded"
        _log.warning(
            "%s is scored in padded batches, without sharing what prompts have in common: %s.",
            type(self._model).__name__,
            reason,
        )


def _sample(items: Sequence[Item]) -> list[Item]:
    """A few short sequences that part and meet, made from the shortest that are to be scored."""
    shortest = min((item.sequence for item in items), key=len)[:_LONGEST]
    # Too short a sequence has no middle to be changed.
    tokens = (shortest * _SHORTEST)[: max(_SHORTEST, len(shortest))]
    middle = len(tokens) // 2
    cut = len(tokens) - _TARGETS
    variants = [
        tokens,
        tokens[:middle] + tokens[middle + 1 :],
        (*tokens[: middle - 1], tokens[middle], *tokens[middle:]),
        tokens[1:],
    ]
    return [
        Item(prompt=variant[: max(1, cut - 1)], target=variant[max(1, cut - 1) :])
        for variant in variants
    ]


_SHORTEST = 8
_LONGEST = 192
_TARGETS = 4


def _difference(
    packed: np.ndarray[Any, np.dtype[np.float64]],
    padded: np.ndarray[Any, np.dtype[np.float64]],
    dtype: torch.dtype,
) -> tuple[float, float]:
    """How far the engines are apart, and how far they may be."""
    apart = np.abs(packed - padded)
    if dtype == torch.float64:
        return float(apart.max()), 1e-8
    if dtype == torch.float32:
        return float(apart.max()), 1e-4
    # The last digit of a large logit in half precision is more than a fixed bound could allow.
    size = float(np.sqrt(np.mean(np.square(padded))))
    return float(np.sqrt(np.mean(np.square(apart)))), 2e-2 * (1 + size)
