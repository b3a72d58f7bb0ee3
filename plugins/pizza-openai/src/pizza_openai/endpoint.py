# SPDX-License-Identifier: Apache-2.0
"""What the three endpoints have in common: a request's body, and a completion from the answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec

from pizza.completion import Completion, Request, Usage
from pizza.errors import BackendError, BadRequestError
from pizza_openai import wire
from pizza_openai.build import from_tokens, usage_of
from pizza_openai.errors import Failure, Translator
from pizza_openai.learned import Learned


class Endpoint(ABC):
    """One kind of endpoint.

    Args:
        model: The model's name.
        translator: Makes the errors.
        learned: What the server taught us so far.
    """

    kind: str
    path: str

    def __init__(self, *, model: str, translator: Translator, learned: Learned) -> None:
        self.model = model
        self.errors = translator
        self.learned = learned

    @abstractmethod
    def body(self, request: Request) -> dict[str, Any]:
        """The JSON body that asks for a completion."""

    @abstractmethod
    def read(self, content: bytes, request: Request) -> Completion:
        """The completion in an answer."""

    # --- for subclasses -----------------------------------------------------------------------

    def decode(self, decoder: msgspec.json.Decoder[wire.T], content: bytes) -> wire.T:
        """The body as a struct; errors inside of it are raised as errors."""
        try:
            answer = wire.decode(decoder, content)
        except (msgspec.MsgspecError, ValueError) as error:
            raise self.errors.malformed(f"{error} ({len(content)} bytes)") from None
        failure = getattr(answer, "error", None)
        if failure is not None and not getattr(answer, "choices", None):
            raise self._reported(failure)
        return answer

    def _reported(self, failure: wire.Failure | str) -> BackendError:
        if isinstance(failure, str):
            return self.errors.malformed(f"an error instead of an answer: {failure}")
        code = failure.code
        status = code if isinstance(code, int) and 400 <= code < 600 else 0
        if not status:
            named = f"{code} {failure.type}".lower()
            status = 429 if "rate_limit" in named else 400 if "invalid" in named else 500
        body = {"error": {"message": failure.message, "code": code, "type": failure.type}}
        return self.errors.status_error(Failure(status, body, {}, self.errors.keys))

    def settings(self, request: Request, values: dict[str, Any]) -> dict[str, Any]:
        """``values`` without refused fields, with the user's extra ones."""
        for name in self.learned.omitted:
            values.pop(name, None)
        values.update(request.generation.extra)
        return values

    def seed(self, request: Request) -> dict[str, Any]:
        """The seed of a request: repetitions of it get different ones."""
        seed = request.generation.seed
        return {} if seed is None else {"seed": seed + request.sample}

    def top(self, request: Request) -> int:
        """Alternatives to ask for."""
        return min(request.generation.top_logprobs, self.learned.top)

    def finished(
        self,
        request: Request,
        *,
        text: str,
        tokens: Sequence[wire.Token] | None,
        finish_reason: str | None,
        usage: wire.Usage | None,
        model: str | None,
    ) -> Completion:
        """The completion, after the checks that all endpoints share."""
        if not text and finish_reason == "length" and usage is not None and usage.reasoning:
            raise BadRequestError(
                f"{self.errors.name} spent all {request.generation.max_tokens} output tokens on "
                "reasoning and wrote nothing: raise max_tokens, or lower the effort, e.g. "
                "extra={'reasoning_effort': 'minimal'}.",
                backend=self.errors.name,
            )
        name = model or self.model
        if not request.logprobs:
            return Completion(
                text=text, finish_reason=finish_reason, usage=usage_of(usage), model=name
            )
        if text and not tokens:
            self.learned.logprobs = False
            raise self.errors.no_logprobs("they were asked for and are not in the answer")
        tokens = tokens or ()
        wanted = self.top(request) > 0
        made = from_tokens(
            text,
            tokens,
            with_alternatives=wanted,
            finish_reason=finish_reason,
            usage=usage_of(usage),
            model=name,
        )
        if wanted and tokens and made.alternative_tokens is None:
            self.learned.alternatives = False
        return made


class ScoringEndpoint(Endpoint):
    """An endpoint that can also score a given target, if the server plays along."""

    dialects: tuple[str, ...]
    """Ways to score a given target, to be tried in this order."""

    @abstractmethod
    def score_body(self, request: Request, dialect: str) -> dict[str, Any]:
        """The JSON body that asks for the log-probabilities of ``request.target``."""

    @abstractmethod
    def read_score(self, content: bytes, request: Request, dialect: str) -> Completion | None:
        """The scored target in an answer, or ``None`` when it is not there."""


def declined(
    learned: Learned,
    endpoint: ScoringEndpoint,
    dialect: str,
    *,
    refusal: BackendError | None = None,
    usage: Usage | None = None,
) -> BackendError:
    """What to raise when asking in this way gave no scores.

    Args:
        learned: What is known of the server; learns this.
        endpoint: Who was asked.
        dialect: How.
        refusal: What the server said, where it gave no answer.
        usage: What its answer cost, where it gave one.
    """
    why = f"asked with {dialect} it " + (
        f"refused: {refusal}"
        if refusal is not None
        else "answered without log-probabilities of the target's tokens"
    )
    said = list(dict.fromkeys([*learned.declined.values(), why]))
    another = learned.decline(dialect, endpoint.dialects, why)
    error = endpoint.errors.no_scoring("; ".join(said))
    return endpoint.errors.ask_again(error, usage=usage) if another else error
