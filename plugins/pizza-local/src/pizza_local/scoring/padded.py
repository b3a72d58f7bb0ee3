# SPDX-License-Identifier: Apache-2.0
"""The padded engine: batches of sequences of about one length, for any causal language model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pizza_local.chunks import Chunks
from pizza_local.counts import Counts
from pizza_local.scoring.architecture import Architecture
from pizza_local.scoring.forward import logits_of
from pizza_local.scoring.items import Item, Scored
from pizza_local.scoring.readout import Answers, Asked

Sequences = list[tuple[int, ...]]

# Tokens of one batch, padding included.
_MOST_CPU = 1024
_MOST_GPU = 8192


def score_padded(
    model: Any,
    architecture: Architecture,
    chunks: Chunks,
    items: Sequence[Item],
    top: int,
    counts: Counts,
    stop: threading.Event | None,
) -> list[Scored]:
    """Score items in batches that are sorted by length and padded on the right.

    A causal model never looks to the right, so that padding changes nothing. Equal sequences are
    computed once.

    Args:
        model: A causal language model of transformers, in eval mode.
        architecture: Facts about it.
        chunks: Sizes.
        items: At least one.
        top: How many alternatives are wanted at each place.
        counts: Gets one pass per batch, padding included.
        stop: Set when the caller has gone.

    Raises:
        Stopped: The caller has gone.
    """
    sequences = sorted({item.sequence for item in items}, key=lambda tokens: (len(tokens), tokens))
    ranks = {tokens: rank for rank, tokens in enumerate(sequences)}
    width = len(sequences[-1])
    # One number for a place: sequences follow one another at equal distances.
    keys = [
        ranks[item.sequence] * width + np.arange(len(item.prompt) - 1, len(item.sequence))
        for item in items
    ]
    asked = Asked.of(items, keys)
    answers = Answers(items, top)
    most = _MOST_CPU if architecture.device.type == "cpu" else _MOST_GPU

    with torch.no_grad():
        for first, group in _alike(sequences, exactly=architecture.by_length):
            longest = len(group[-1])

            def work(chunk: slice, first: int = first, group: Sequences = group) -> None:
                batch = group[chunk]
                start = first + chunk.start
                here = asked.within(slice(start * width, (start + len(batch)) * width))
                columns, column = np.unique(here.keys % width, return_inverse=True)
                lengths = np.array([len(sequence) for sequence in batch])
                # Attention that is causal and nothing else needs no mask for what comes later.
                told = architecture.obstacle is not None and lengths[0] < lengths[-1]
                logits = logits_of(
                    model,
                    architecture,
                    _padded(batch),
                    np.arange(lengths[-1]),
                    columns,
                    lengths if told else None,
                )
                rows = (here.keys // width - start) * len(columns) + column
                answers.read(logits.flatten(0, 1), rows, here)
                counts.forward(len(batch) * int(lengths[-1]))

            each = longest * (architecture.token_bytes + architecture.logits_bytes)
            fit = max(1, most // longest)
            for _ in chunks.run(("padded", longest), len(group), each, fit, work, stop):
                pass
    return answers.split()


def _alike(sequences: Sequences, *, exactly: bool) -> Iterator[tuple[int, Sequences]]:
    """Groups of sequences of one length, or up to twice as long; each with its first index."""
    first = 0
    for _, group in groupby(
        sequences, key=lambda tokens: len(tokens) if exactly else len(tokens).bit_length()
    ):
        members = list(group)
        yield first, members
        first += len(members)


def _padded(batch: Sequences) -> NDArray[np.int64]:
    """Token ids of a batch, ``(batch, longest)``."""
    tokens = np.empty((len(batch), len(batch[-1])), dtype=np.int64)
    for row, sequence in zip(tokens, batch, strict=True):
        row[: len(sequence)] = sequence
        # A padding token at the end makes transformers warn of a mask that is missing.
        row[len(sequence) :] = sequence[-1]
    return tokens
