# SPDX-License-Identifier: Apache-2.0
"""Scores from right-padded batches, for models whose prompts share no computation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pizza_local.chunks import Chunks
from pizza_local.counts import Counts
from pizza_local.kinds.base import Job
from pizza_local.scoring import Scored

_MOST = 64
_POSITIONS = 4096


def scored(
    jobs: Sequence[Job],
    run: Callable[[Sequence[Job]], Sequence[Tensor]],
    *,
    top: int,
    chunks: Chunks,
    counts: Counts,
    stop: threading.Event,
    width: int,
) -> list[Scored]:
    """Log-probabilities of the jobs' targets.

    Args:
        jobs: What to score; sorted by length here, so that little is padded.
        run: Logits ``(n_i, vocabulary)`` of each job of a batch.
        top: Most likely entries that are wanted at each place.
        chunks: Sizes of batches.
        counts: Where passes are counted.
        stop: Set when the caller is gone.
        width: Bytes that one position takes on its way through the model.
    """
    order = sorted(range(len(jobs)), key=lambda place: _length(jobs[place]))
    longest = max((_length(job) for job in jobs), default=1)
    most = max(1, min(_MOST, _POSITIONS // longest))
    results: list[Scored | None] = [None] * len(jobs)

    def work(chunk: slice) -> list[Scored]:
        batch = [jobs[place] for place in order[chunk]]
        with torch.inference_mode():
            rows = run(batch)
            counts.forward(len(batch) * max(_length(job) for job in batch))
            return [_read(logits, job, top) for logits, job in zip(rows, batch, strict=True)]

    for chunk, found in chunks.run(
        ("padded", longest), len(jobs), width * longest, most, work, stop
    ):
        for place, one in zip(order[chunk], found, strict=True):
            results[place] = one
    return [one for one in results if one is not None]


def padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids ``(b, longest)`` padded on the right, and their mask of ones and zeros."""
    width = max(len(row) for row in rows)
    ids = [[*row, *[pad] * (width - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _length(job: Job) -> int:
    return len(job.encoding.ids) + len(job.target or ())


def _read(logits: Tensor, job: Job, top: int) -> Scored:
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    logs = logits.log_softmax(-1)
    targets = torch.tensor(list(job.target or ()), device=logs.device)
    own = logs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    best = logs.topk(min(top, logs.shape[-1]), dim=-1)

    def plain(values: Tensor, dtype: Any) -> Any:
        return values.cpu().numpy().astype(dtype)

    return Scored(
        logprobs=plain(own, np.float64),
        top_tokens=plain(best.indices, np.int64),
        top_logprobs=plain(best.values, np.float64),
    )
