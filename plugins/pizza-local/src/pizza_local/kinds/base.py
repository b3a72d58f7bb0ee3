# SPDX-License-Identifier: Apache-2.0
"""`Kind`: what differs between decoders, encoder-decoders, classifiers and fillers of masks."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pizza.capability import Capability
from pizza.completion import Generation
from pizza.errors import BadRequestError, ContextTooLongError
from pizza_local.chunks import Chunks
from pizza_local.counts import Counts
from pizza_local.encoding import Encoder, Encoding
from pizza_local.scoring import Scored
from pizza_local.subjects import Network, Subject

Emit = Callable[[int, Scored], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An output that the model chose.

    Attributes:
        ids: Its tokens (or its label, or the fillings of the masks).
        finish_reason: ``"stop"`` or ``"length"``.
        finite: Whether it was chosen by numbers. Where the model computes NaN there is no choice.
    """

    ids: tuple[int, ...]
    finish_reason: str = "stop"
    finite: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A prompt to be completed, or scored with a target.

    Attributes:
        encoding: The prompt.
        generation: How the model writes.
        sample: Number of the repetition.
        target: Ids of the output to score, or ``None``.
    """

    encoding: Encoding
    generation: Generation
    sample: int = 0
    target: tuple[int, ...] | None = None


class Kind(ABC):
    """One kind of model. Belongs to one opened model, and is used by one thread at a time.

    Args:
        network: The model.
        encoder: Its tokenizer.
        chunks: Sizes of batches.
    """

    name: ClassVar[str]
    offers: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.COMPLETE,
            Capability.LOGPROBS,
            Capability.ALTERNATIVES,
            Capability.SCORE,
            Capability.TOKENIZE,
            Capability.EMBEDDINGS,
            Capability.GRADIENTS,
        }
    )

    def __init__(self, network: Network, encoder: Encoder, chunks: Chunks) -> None:
        self.network = network
        self.encoder = encoder
        self.chunks = chunks

    # --- what an output is --------------------------------------------------------------------

    def target(self, text: str, encoding: Encoding) -> tuple[int, ...]:
        """Ids of a given output.

        Raises:
            BadRequestError: The model cannot give such an output.
        """
        return self.encoder.target(text)

    def check_ids(self, ids: Sequence[int], encoding: Encoding) -> tuple[int, ...]:
        """Ids that a caller gave.

        Raises:
            BadRequestError: They are not an output of this model.
        """
        return self.encoder.check_ids(ids, self.network.vocabulary)

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The texts of an output's tokens."""
        return self.encoder.pieces(ids)

    def piece(self, index: int) -> str:
        """The text of one alternative."""
        return self.encoder.piece(index)

    def text(self, ids: Sequence[int]) -> str:
        """The text of an output."""
        return self.encoder.decode(ids)

    # --- what can be asked --------------------------------------------------------------------

    @abstractmethod
    def complete(self, jobs: Sequence[Job], counts: Counts, stop: threading.Event) -> list[Written]:
        """What the model writes for each prompt."""

    @abstractmethod
    def score(
        self, jobs: Sequence[Job], top: int, counts: Counts, stop: threading.Event
    ) -> list[Scored]:
        """Log-probabilities of each job's target, with the ``top`` most likely at each place."""

    @abstractmethod
    def subject(self, encoding: Encoding, targets: Sequence[int]) -> Subject:
        """Prompt and output as a differentiable function."""

    # --- limits -------------------------------------------------------------------------------

    @property
    def limit(self) -> int | None:
        """Positions that the model can read, or ``None`` where there is no limit."""
        config = self.network.model.config
        if config.model_type in ("t5", "mt5", "umt5", "longt5", "switch_transformers"):
            return None
        found = getattr(config, "max_position_embeddings", None)
        if not isinstance(found, int) or found <= 0:
            return None
        if "roberta" in config.model_type or config.model_type == "camembert":
            # Their first positions are taken by the padding index.
            return found - int(config.pad_token_id or 0) - 1
        return found

    def check(self, job: Job) -> None:
        """Refuse a job that cannot be done, before it spoils the batch that it is in.

        Raises:
            BadRequestError: The model does not do such work.
            ContextTooLongError: It is longer than the context.
        """
        self.check_length(self._positions(job))

    def _positions(self, job: Job) -> int:
        """Positions that prompt and output take in the longest sequence that the model reads."""
        return len(job.encoding.ids)

    def check_length(self, n_tokens: int) -> None:
        """Refuse what the model cannot read.

        Raises:
            ContextTooLongError: It is longer than the context.
        """
        limit = self.limit
        if limit is not None and n_tokens > limit:
            raise ContextTooLongError(
                f"the prompt (with its target) has {n_tokens} tokens and {self.network.name} "
                f"reads at most {limit}: shorten the prompt.",
                backend=self.network.name,
                limit=limit,
                got=n_tokens,
            )

    def refuse_sampling(self, generation: Generation) -> None:
        """Kinds that choose an output in one step do not sample it.

        Raises:
            BadRequestError: A temperature was given.
        """
        if generation.temperature > 0:
            raise BadRequestError(
                f"{self.network.name} is a {self.name} and chooses the most likely output: "
                f"temperature={generation.temperature:g} means nothing to it. Use 0.",
                backend=self.network.name,
            )
