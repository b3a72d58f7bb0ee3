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
from numpy.typing import NDArray

from pizza_local.chunks import Chunks, Stopped, is_out_of_memory
from pizza_local.counts import Counts
from pizza_local.scoring.architecture import Architecture
from pizza_local.scoring.items import Item, Scored
from pizza_local.scoring.packed import best_packing, score_packed
from pizza_local.scoring.padded import score_padded

_log = logging.getLogger("pizza.local")

Engine = Literal["packed", "padded"]

_PADDED = "%s is scored in padded batches, without sharing what prompts have in common"

# How far the engines may be apart, nats, at log-probabilities around 0.
_ALLOWED = {torch.float64: 1e-8, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}

# The sequences that the engines are compared on, in tokens: long enough to part in the middle.
_SHORTEST = 8
_LONGEST = 192
_TARGETS = 4


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
        if self._architecture.obstacle is not None:
            _log.info("%s: %s.", _PADDED % type(model).__name__, self._architecture.obstacle)

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
            difference = _rms(packed - padded)
            # Rounding grows with the logits. Not a number is not close either.
            if not difference <= _ALLOWED.get(self._rounding(), 2e-2) * (1 + _rms(padded)):
                self._fall_back(f"log-probabilities differ by {difference:.2g}")
        self._checked = True

    def _rounding(self) -> torch.dtype:
        """The least precise type that a forward pass goes through."""
        dtype: torch.dtype = self._model.get_input_embeddings().weight.dtype
        config = self._model.config.get_text_config(decoder=True)
        if dtype == torch.float64 and getattr(config, "_attn_implementation", None) == "eager":
            # Eager attention puts its weights into single precision, whatever the model has.
            return torch.float32
        if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
            return torch.bfloat16
        return dtype

    def _fall_back(self, reason: str) -> None:
        self._engine = "padded"
        _log.warning("%s: %s.", _PADDED % type(self._model).__name__, reason)


def _sample(items: Sequence[Item]) -> list[Item]:
    """A few short sequences that part and meet, made from the shortest that are to be scored."""
    shortest = min((item.sequence for item in items), key=len)[:_LONGEST]
    # Too short a sequence has no middle to be changed.
    tokens = (shortest * _SHORTEST)[: max(_SHORTEST, len(shortest))]
    middle = len(tokens) // 2
    other = 0 if tokens[middle - 1] else 1
    cut = len(tokens) - _TARGETS
    variants = [
        tokens,
        tokens[:middle] + tokens[middle + 1 :],
        (*tokens[: middle - 1], other, *tokens[middle:]),
        tokens[1:],
    ]
    return [
        Item(prompt=variant[: max(1, cut - 1)], target=variant[max(1, cut - 1) :])
        for variant in variants
    ]


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
