# SPDX-License-Identifier: Apache-2.0
"""The packed engine: every node of the prefix trie goes through the network exactly once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch

from pizza_local.chunks import Chunks
from pizza_local.counts import Counts
from pizza_local.scoring.activation import fused
from pizza_local.scoring.architecture import Architecture
from pizza_local.scoring.attention import packed
from pizza_local.scoring.branches import Pass, Path
from pizza_local.scoring.forward import logits_of
from pizza_local.scoring.items import Item, Scored
from pizza_local.scoring.readout import Answers, Asked
from pizza_local.scoring.trie import grow


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How a trie is cut into passes.

    Args:
        most: Tokens of one pass.
        dense: Attend in one masked product over a pass, instead of branch by branch.
    """

    most: int
    dense: bool


# On two cores 768 to 2048 tokens a pass are equally fast, and 384 are up to a tenth slower. A GPU
# is busy with a few thousand, and would pay for more with a mask that grows with the square.
_CPU = Packing(most=1024, dense=False)
_ACCELERATOR = Packing(most=2048, dense=True)


def best_packing(architecture: Architecture) -> Packing:
    """How a trie is best cut on the device of a model."""
    return _CPU if architecture.device.type == "cpu" else _ACCELERATOR


def score_packed(
    model: Any,
    architecture: Architecture,
    chunks: Chunks,
    items: Sequence[Item],
    top: int,
    counts: Counts,
    stop: threading.Event | None,
    packing: Packing | None = None,
) -> list[Scored]:
    """Score items by their prefix trie, in passes over chunks of it in depth-first order.

    Args:
        model: A causal language model of transformers, in eval mode.
        architecture: Facts about it.
        chunks: Sizes.
        items: At least one.
        top: How many alternatives are wanted at each place.
        counts: Gets one pass per chunk; all of them together have one token per node.
        stop: Set when the caller has gone.
        packing: How the trie is cut, if not as is best for the device.

    Raises:
        Stopped: The caller has gone.
        NotPackableError: The model asks its attention for something unknown.
    """
    trie = grow(items)
    asked = Asked.of(items, trie.states)
    answers = Answers(items, top)
    packing = packing or best_packing(architecture)
    path: Path = {}

    def work(chunk: slice) -> Path:
        here = asked.within(chunk)
        nodes, rows = np.unique(here.keys, return_inverse=True)
        running = Pass(trie, chunk, path, dense=packing.dense)
        with packed(model, running), fused(model):
            logits = logits_of(
                model,
                architecture,
                trie.tokens[None, chunk],
                trie.depths[chunk],
                nodes - chunk.start,
            )
        answers.read(logits[0], rows, here)
        counts.forward(chunk.stop - chunk.start)
        return running.path

    # Passes of one size: a short one at the end would not pay for reading the weights.
    most = ceil(len(trie) / ceil(len(trie) / packing.most))
    # The path is there twice: as it was before the pass, and as it will be after it.
    paths = 2 * (int(trie.depths.max()) + most) * architecture.state_bytes
    bytes_each = architecture.token_bytes + architecture.logits_bytes + paths // most
    with torch.no_grad():
        for _, after in chunks.run("packed", len(trie), bytes_each, most, work, stop):
            # The next pass begins where this one ended; a pass that is redone, where it began.
            path = after
    return answers.split()
