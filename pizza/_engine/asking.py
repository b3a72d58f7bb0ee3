# SPDX-License-Identifier: Apache-2.0
"""What is asked about every coalition, and what it took."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pizza.abc import Metric
from pizza.completion import Completion, Generation, Request, Usage

if TYPE_CHECKING:
    from pizza._engine.scheduler import Answer
    from pizza.prompt import Prompt


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """One request per coalition, and the metrics that read its answers.

    Attributes:
        kind: ``"complete"`` or ``"score"``.
        target: The text that is scored.
        target_ids: The same as token ids, where they are known.
        reference: The answer to the unperturbed prompt.
        window: Half-open range of the reference's tokens that counts, or ``None`` for all.
        metrics: Index into the measurement's metrics, and the metric.
        sign: 1, or -1 for the other side of a contrast.
        logprobs: Whether log-probabilities are asked for.
        repeats: Answers per coalition, whose effects are averaged. A teacher-forced score is the
            same every time and asked for once.
    """

    kind: Literal["complete", "score"]
    reference: Completion
    metrics: tuple[tuple[int, Metric], ...]
    target: str | None = None
    target_ids: tuple[int, ...] | None = None
    window: tuple[int, int] | None = None
    sign: int = 1
    logprobs: bool = True
    repeats: int = 1

    def request(self, prompt: Prompt, generation: Generation, sample: int = 0) -> Request:
        """The question about a prompt.

        Args:
            prompt: Perturbed or not.
            generation: How the model writes. A model that samples gets another seed for another
                sample: the same one would make it say the same again.
            sample: Number of the repetition.
        """
        if sample and generation.temperature > 0 and generation.seed is not None:
            generation = replace(generation, seed=generation.seed + sample)
        return Request(
            prompt=prompt,
            kind=self.kind,
            target=self.target,
            target_ids=self.target_ids,
            logprobs=self.logprobs,
            generation=generation,
            sample=sample,
        )


@dataclass(slots=True)
class Account:
    """What an attribution has spent so far."""

    calls: int = 0
    cache_hits: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0

    @property
    def usage(self) -> Usage:
        """Tokens that its answers cost."""
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens)

    def add(self, answer: Answer) -> None:
        """Count one answer."""
        if answer.cached:
            self.cache_hits += 1
            return
        self.calls += answer.attempts
        usage = answer.completion.usage
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        if answer.cost is None or self.cost is None:
            self.cost = None
        else:
            self.cost += answer.cost
