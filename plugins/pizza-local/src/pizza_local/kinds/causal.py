# SPDX-License-Identifier: Apache-2.0
"""Decoders: GPT-2, Llama and all that predict the next token of one sequence."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from torch import Tensor

from pizza_local.chunks import Chunks
from pizza_local.counts import Counts
from pizza_local.encoding import Encoder, Encoding
from pizza_local.kinds.base import Job
from pizza_local.kinds.generating import GeneratingKind
from pizza_local.scoring import CausalScorer, Item, Scored
from pizza_local.subjects import CausalSubject, Network


class CausalKind(GeneratingKind):
    """Writes and scores with one network; prompts of a round share their prefixes."""

    name = "causal language model"

    def __init__(self, network: Network, encoder: Encoder, chunks: Chunks) -> None:
        super().__init__(network, encoder, chunks)
        self.scorer = CausalScorer(network.model, chunks)

    def score(
        self, jobs: Sequence[Job], top: int, counts: Counts, stop: threading.Event
    ) -> list[Scored]:
        """See `Kind.score`."""
        items = [Item(prompt=job.encoding.ids, target=job.target or ()) for job in jobs]
        return self.scorer.score(items, top=top, counts=counts, stop=stop)

    def subject(self, encoding: Encoding, targets: Sequence[int]) -> CausalSubject:
        """See `Kind.subject`."""
        self.check_length(len(encoding.ids) + len(targets) - 1)
        return CausalSubject(self.network, encoding, targets, self.pieces(targets))

    def _positions(self, job: Job) -> int:
        # The last token of an output is predicted and not read; at least one is to be written.
        return len(job.encoding.ids) + (1 if job.target is None else len(job.target) - 1)

    def _read(self, job: Job) -> int:
        return len(job.encoding.ids)

    def _new(self, sequence: Tensor, width: int) -> Tensor:
        return sequence[width:]
