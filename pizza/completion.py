# SPDX-License-Identifier: Apache-2.0
"""Requests to a model and what comes back: `Generation`, `Request`, `Usage`, `Completion`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pizza.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pizza.limits import RateStatus
    from pizza.prompt import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """How the model writes. The same for the reference and for every perturbed prompt.

    Attributes:
        max_tokens: Longest output, tokens. Servers charge rate limits for it: keep it tight.
        temperature: 0 = greedy.
        seed: Passed on to servers that take one; ``None`` = do not send.
        top_logprobs: Alternatives per output position, 0-20.
        stop: Strings that end the output.
        extra: Further JSON fields for the server, sent as they are.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    seed: int | None = 0
    top_logprobs: int = 20
    stop: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens must be at least 1, not {self.max_tokens!r}.")
        if not 0 <= self.top_logprobs <= 20:
            raise ConfigError(f"top_logprobs must be 0 to 20, not {self.top_logprobs!r}.")
        if self.temperature < 0:
            raise ConfigError(f"temperature must be 0 or more, not {self.temperature!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question to a backend: complete this prompt, or score this target after it.

    Attributes:
        prompt: The (perturbed) prompt.
        kind: ``"complete"`` writes an output; ``"score"`` gives the teacher-forced
            log-probabilities of ``target`` instead.
        target: The text to score; only with ``kind="score"``.
        target_ids: The same target as the model's own tokens, where they are known. A text that is
            tokenised again may be cut otherwise than it was written. Backends whose models are
            given texts ignore it.
        logprobs: Whether log-probabilities (and ``generation.top_logprobs`` alternatives) are
            wanted. Not asking for them makes answers smaller, and models that have none usable.
        generation: How the model writes; for ``"score"`` only ``top_logprobs`` and ``extra`` count.
        sample: Number of the repetition. Repeats of one request are different requests to the
            cache, because a sampling model answers them differently.
    """

    prompt: Prompt
    kind: Literal["complete", "score"] = "complete"
    target: str | None = None
    target_ids: tuple[int, ...] | None = None
    logprobs: bool = True
    generation: Generation = field(default_factory=Generation)
    sample: int = 0

    def __post_init__(self) -> None:
        if (self.kind == "score") != (self.target is not None):
            raise ConfigError(
                f"a request of kind {self.kind!r} has target {self.target!r}: 'score' needs a "
                "target and 'complete' takes none."
            )
        if self.target_ids is not None and self.kind != "score":
            raise ConfigError("target_ids belong to a request of kind 'score'.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens that were paid for."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt plus completion tokens."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


def frozen_array(values: Any, dtype: Any = np.float64) -> NDArray[Any]:
    """A read-only array of ``values``; copies unless it is already one."""
    array = np.asarray(values, dtype=dtype)
    if array.flags.writeable:
        array = array.copy() if array is values or array.base is not None else array
        array.setflags(write=False)
    return array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Completion:
    """What a model wrote (or, for a scored target, what it was given).

    Attributes:
        text: The output text.
        tokens: The output tokens' texts; empty when the backend gives none.
        token_ids: Their ids in the model's vocabulary, where the backend knows them, or ``None``.
        logprobs: Natural-log probabilities ``(n_tokens,)``, or ``None``. Read-only float64.
        alternative_tokens: Per position the texts of the most likely tokens, best first (may
            differ in number per position), or ``None``.
        alternative_logprobs: Their natural-log probabilities ``(n_tokens, n_alternatives)``,
            padded with ``-inf``, or ``None``. Read-only float64.
        finish_reason: ``"stop"``, ``"length"``, ... or ``None``.
        usage: Tokens that this answer cost.
        model: The model id that the server reported.
    """

    text: str
    tokens: tuple[str, ...] = ()
    logprobs: NDArray[np.float64] | None = None
    alternative_tokens: tuple[tuple[str, ...], ...] | None = None
    alternative_logprobs: NDArray[np.float64] | None = None
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    token_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        n = len(self.tokens)
        if self.token_ids is not None and len(self.token_ids) != n:
            raise ConfigError(f"{n} tokens with {len(self.token_ids)} token ids.")
        if self.logprobs is not None:
            object.__setattr__(self, "logprobs", frozen_array(self.logprobs))
            if self.logprobs.shape != (n,):
                raise ConfigError(f"{n} tokens with log-probabilities {self.logprobs.shape}.")
        if (self.alternative_tokens is None) != (self.alternative_logprobs is None):
            raise ConfigError("alternative_tokens and alternative_logprobs come together.")
        if self.alternative_logprobs is not None and self.alternative_tokens is not None:
            object.__setattr__(
                self, "alternative_logprobs", frozen_array(self.alternative_logprobs)
            )
            shape = self.alternative_logprobs.shape
            widest = max(map(len, self.alternative_tokens), default=0)
            if len(self.alternative_tokens) != n or len(shape) != 2 or shape[0] != n:
                raise ConfigError(f"{n} tokens with alternatives of shape {shape}.")
            if widest > shape[1]:
                raise ConfigError(f"{widest} alternative tokens in {shape[1]} columns.")

    def token_window(self, span: tuple[int, int]) -> tuple[int, int]:
        """The half-open range of tokens that a code-point span of the output touches.

        Raises:
            ConfigError: It touches none.
        """
        at = 0
        touched: list[int] = []
        for index, token in enumerate(self.tokens):
            if at < span[1] and at + len(token) > span[0]:
                touched.append(index)
            at += len(token)
        if not touched:
            raise ConfigError(
                f"the target span {span} is outside of the output, which has {at} characters: "
                f"{self.text[:80]!r}."
            )
        return touched[0], touched[-1] + 1

    def window(self, start: int, stop: int) -> Completion:
        """The completion with the tokens of a half-open range alone, and their text."""

        def cut(values: Any) -> Any:
            return None if values is None else values[start:stop]

        return replace(
            self,
            text="".join(self.tokens[start:stop]),
            tokens=self.tokens[start:stop],
            token_ids=cut(self.token_ids),
            logprobs=cut(self.logprobs),
            alternative_tokens=cut(self.alternative_tokens),
            alternative_logprobs=cut(self.alternative_logprobs),
        )

    def distribution(self, position: int) -> dict[str, float]:
        """Alternatives at one position: token text -> natural-log probability (best one if twice).

        The sampled token itself is included when its log-probability is known.

        Raises:
            IncomparableError: The completion has no alternatives.
        """
        from pizza.errors import IncomparableError

        if self.alternative_tokens is None or self.alternative_logprobs is None:
            raise IncomparableError("this completion carries no alternatives (top log-probs).")
        result: dict[str, float] = {}
        row = self.alternative_logprobs[position]
        for text, value in zip(self.alternative_tokens[position], row.tolist(), strict=False):
            if value > result.get(text, -np.inf):
                result[text] = value
        if self.logprobs is not None:
            own = self.tokens[position]
            result[own] = max(float(self.logprobs[position]), result.get(own, -np.inf))
        return result

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Completion):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.text, self.tokens, self.finish_reason, self.model))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the inverse of `from_dict`."""
        rows = None
        if self.alternative_tokens is not None and self.alternative_logprobs is not None:
            rows = [
                [list(pair) for pair in zip(texts, values.tolist(), strict=False)]
                for texts, values in zip(
                    self.alternative_tokens, self.alternative_logprobs, strict=True
                )
            ]
        return {
            "text": self.text,
            "tokens": list(self.tokens),
            "logprobs": None if self.logprobs is None else self.logprobs.tolist(),
            "alternatives": rows,
            "finish_reason": self.finish_reason,
            "usage": [self.usage.prompt_tokens, self.usage.completion_tokens],
            "model": self.model,
            "token_ids": None if self.token_ids is None else list(self.token_ids),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Completion:
        """The inverse of `to_dict`."""
        tokens = tuple(data["tokens"])
        rows = data["alternatives"]
        texts, values = (None, None) if rows is None else pack_alternatives(rows)
        ids = data.get("token_ids")
        return cls(
            text=data["text"],
            tokens=tokens,
            logprobs=None if data["logprobs"] is None else np.array(data["logprobs"], dtype=float),
            alternative_tokens=texts,
            alternative_logprobs=values,
            finish_reason=data["finish_reason"],
            usage=Usage(prompt_tokens=data["usage"][0], completion_tokens=data["usage"][1]),
            model=data["model"],
            token_ids=None if ids is None else tuple(ids),
        )


def pack_alternatives(
    rows: Sequence[Sequence[tuple[str, float] | Sequence[Any]]],
) -> tuple[tuple[tuple[str, ...], ...], NDArray[np.float64]]:
    """Pack ``[(token, logprob), ...]`` per position into the two fields of `Completion`."""
    width = max((len(row) for row in rows), default=0)
    values = np.full((len(rows), width), -np.inf)
    for position, row in enumerate(rows):
        for column, (_, value) in enumerate(row):
            values[position, column] = value
    values.setflags(write=False)
    return tuple(tuple(text for text, _ in row) for row in rows), values


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A backend's answer to one attempt.

    Attributes:
        completion: What the model wrote.
        rate: What the server said of its limits, or ``None``.
        request_id: The server's own id of the request, or ``None``.
    """

    completion: Completion
    rate: RateStatus | None = None
    request_id: str | None = None
