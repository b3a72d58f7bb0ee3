# SPDX-License-Identifier: Apache-2.0
"""Encoders with a head: classifiers of texts, and models that fill masks."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pizza.capability import Capability
from pizza.errors import BadRequestError
from pizza_local.counts import Counts
from pizza_local.encoding import Encoding
from pizza_local.kinds.base import Job, Kind, Written
from pizza_local.kinds.batches import padded, scored
from pizza_local.scoring import Scored
from pizza_local.subjects import EncoderSubject, Subject


class _EncoderKind(Kind):
    """The whole output is read off in one pass."""

    def complete(self, jobs: Sequence[Job], counts: Counts, stop: threading.Event) -> list[Written]:
        """See `Kind.complete`: the most likely output."""
        asked = [
            Job(encoding=job.encoding, generation=job.generation, target=self._any(job.encoding))
            for job in jobs
        ]
        found = self.score(asked, 1, counts, stop)
        return [
            Written(
                ids=tuple(one.top_tokens[:, 0].tolist()),
                finite=not bool(np.isnan(one.logprobs).any()),
            )
            for one in found
        ]

    def score(
        self, jobs: Sequence[Job], top: int, counts: Counts, stop: threading.Event
    ) -> list[Scored]:
        """See `Kind.score`."""
        width = 64 * int(self.network.model.config.hidden_size) * 4
        return scored(
            jobs,
            self._logits,
            top=top,
            chunks=self.chunks,
            counts=counts,
            stop=stop,
            width=width,
        )

    def check(self, job: Job) -> None:
        """See `Kind.check`."""
        super().check(job)
        if job.target is None:
            self.refuse_sampling(job.generation)

    def _any(self, encoding: Encoding) -> tuple[int, ...]:
        """Some output of the right length, for questions about all of them."""
        return (0,)

    def _run(self, jobs: Sequence[Job]) -> list[Tensor]:
        # Decoders with a classifier's head look for the last token that is not this one.
        pad = self.network.model.config.pad_token_id
        if pad is None or pad < 0:
            return [row for job in jobs for row in self._together([job], 0)]
        return self._together(jobs, pad)

    def _together(self, jobs: Sequence[Job], pad: int) -> list[Tensor]:
        ids, mask = padded([job.encoding.ids for job in jobs], pad, self.network.device)
        extra = {
            name: padded([job.encoding.extra[name] for job in jobs], 0, self.network.device)[0]
            for name in jobs[0].encoding.extra
        }
        return list(self.network.model(input_ids=ids, attention_mask=mask, **extra).logits)

    @abstractmethod
    def _logits(self, jobs: Sequence[Job]) -> list[Tensor]:
        """Logits ``(n_i, vocabulary)`` at the places of each job's output."""


class ClassifierKind(_EncoderKind):
    """A classifier of texts: its output is one label."""

    name = "classifier"
    offers: ClassVar[frozenset[Capability]] = Kind.offers | {Capability.CLASSIFY}

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the logits."""
        names = self.network.model.config.id2label
        return tuple(str(names[index]) for index in range(len(names)))

    def target(self, text: str, encoding: Encoding) -> tuple[int, ...]:
        """See `Kind.target`: the index of a label, by its name."""
        for index, label in enumerate(self.labels):
            if label == text:
                return (index,)
        for index, label in enumerate(self.labels):
            if label.casefold() == text.strip().casefold():
                return (index,)
        raise BadRequestError(
            f"{self.network.name} has no label {text!r}; its labels are {', '.join(self.labels)}.",
            backend=self.network.name,
        )

    def check_ids(self, ids: Sequence[int], encoding: Encoding) -> tuple[int, ...]:
        """See `Kind.check_ids`: the index of a label."""
        if len(ids) != 1 or not 0 <= ids[0] < len(self.labels):
            raise BadRequestError(
                f"the output of {self.network.name} is one label, 0 to {len(self.labels) - 1}, "
                f"not {list(ids)}.",
                backend=self.network.name,
            )
        return tuple(ids)

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """See `Kind.pieces`."""
        return tuple(self.labels[index] for index in ids)

    def piece(self, index: int) -> str:
        """See `Kind.piece`."""
        return self.labels[index]

    def text(self, ids: Sequence[int]) -> str:
        """See `Kind.text`."""
        return " ".join(self.pieces(ids))

    def subject(self, encoding: Encoding, targets: Sequence[int]) -> Subject:
        """See `Kind.subject`."""
        self.check_length(len(encoding.ids))
        return EncoderSubject(self.network, encoding, targets)

    def _logits(self, jobs: Sequence[Job]) -> list[Tensor]:
        return [row.unsqueeze(0) for row in self._run(jobs)]


class MaskedKind(_EncoderKind):
    """A model that fills masks: its output is one token for every mask of the prompt."""

    name = "masked language model"

    def masks(self, encoding: Encoding) -> list[int]:
        """Positions of the masks.

        Raises:
            BadRequestError: There is none.
        """
        mask = self.encoder.tokenizer.mask_token_id
        found = [position for position, index in enumerate(encoding.ids) if index == mask]
        if not found:
            raise BadRequestError(
                f"{self.network.name} fills masks, and the prompt has none: write "
                f"{self.encoder.tokenizer.mask_token} where a word is to be found.",
                backend=self.network.name,
            )
        return found

    def target(self, text: str, encoding: Encoding) -> tuple[int, ...]:
        """See `Kind.target`: one token for every mask."""
        return self._fitting(self.encoder.target(text), encoding, repr(text))

    def check_ids(self, ids: Sequence[int], encoding: Encoding) -> tuple[int, ...]:
        """See `Kind.check_ids`: one token for every mask."""
        return self._fitting(super().check_ids(ids, encoding), encoding, str(list(ids)))

    def _fitting(self, ids: tuple[int, ...], encoding: Encoding, what: str) -> tuple[int, ...]:
        masks = self.masks(encoding)
        if len(ids) != len(masks):
            raise BadRequestError(
                f"the target {what} is {len(ids)} tokens and the prompt has {len(masks)} masks: "
                "give one token of the vocabulary for each. A perturbation that writes masks of "
                f"its own ({self.encoder.tokenizer.mask_token}) changes what is asked: let "
                "something else stand in.",
                backend=self.network.name,
            )
        return ids

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """See `Kind.pieces`: fillings stand apart from one another."""
        return tuple(
            (" " if place else "") + self.encoder.piece(index) for place, index in enumerate(ids)
        )

    def text(self, ids: Sequence[int]) -> str:
        """See `Kind.text`."""
        return "".join(self.pieces(ids))

    def subject(self, encoding: Encoding, targets: Sequence[int]) -> EncoderSubject:
        """See `Kind.subject`."""
        self.check_length(len(encoding.ids))
        return EncoderSubject(self.network, encoding, targets, self.masks(encoding))

    def check(self, job: Job) -> None:
        """See `Kind.check`: there is something to fill."""
        super().check(job)
        self.masks(job.encoding)

    def _any(self, encoding: Encoding) -> tuple[int, ...]:
        return (0,) * len(self.masks(encoding))

    def _logits(self, jobs: Sequence[Job]) -> list[Tensor]:
        return [
            row[torch.tensor(self.masks(job.encoding), device=row.device)]
            for row, job in zip(self._run(jobs), jobs, strict=True)
        ]
