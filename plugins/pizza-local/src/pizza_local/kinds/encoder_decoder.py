# SPDX-License-Identifier: Apache-2.0
"""Encoder-decoders: T5, BART, Marian and the like."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from torch import Tensor

from pizza_local.counts import Counts
from pizza_local.encoding import Encoding
from pizza_local.kinds.base import Job
from pizza_local.kinds.batches import padded, scored
from pizza_local.kinds.generating import GeneratingKind
from pizza_local.scoring import Scored
from pizza_local.subjects import EncoderDecoderSubject


class EncoderDecoderKind(GeneratingKind):
    """The prompt goes to the encoder, the output to the decoder."""

    name = "encoder-decoder"

    def score(
        self, jobs: Sequence[Job], top: int, counts: Counts, stop: threading.Event
    ) -> list[Scored]:
        """See `Kind.score`."""
        return scored(
            jobs,
            self._logits,
            top=top,
            chunks=self.chunks,
            counts=counts,
            stop=stop,
            width=self._bytes_per_position() + 12 * self.network.vocabulary,
        )

    def _logits(self, jobs: Sequence[Job]) -> list[Tensor]:
        network = self.network
        ids, mask = padded([job.encoding.ids for job in jobs], self._pad(), network.device)
        before, _ = padded(
            [(self._start, *(job.target or ())[:-1]) for job in jobs], self._pad(), network.device
        )
        # The decoder is causal: padding on its right is never looked at.
        logits = network.model(
            input_ids=ids, attention_mask=mask, decoder_input_ids=before, use_cache=False
        ).logits
        return [row[: len(job.target or ())] for row, job in zip(logits, jobs, strict=True)]

    def subject(self, encoding: Encoding, targets: Sequence[int]) -> EncoderDecoderSubject:
        """See `Kind.subject`."""
        self.check_length(max(len(encoding.ids), len(targets)))
        return EncoderDecoderSubject(self.network, encoding, targets)

    @property
    def _start(self) -> int:
        """The token that every output begins with."""
        model = self.network.model
        for holder in (model.config, model.generation_config):
            for name in ("decoder_start_token_id", "bos_token_id"):
                found = getattr(holder, name, None)
                if found is not None:
                    return int(found)
        return self._pad()

    def _positions(self, job: Job) -> int:
        return max(len(job.encoding.ids), len(job.target or ()))

    def _read(self, job: Job) -> int:
        return 1

    def _new(self, sequence: Tensor, width: int) -> Tensor:
        return sequence[1:]
