# SPDX-License-Identifier: Apache-2.0
"""Legacy Completions: a text goes on, and a given continuation is scored with ``echo``."""

from __future__ import annotations

from typing import Any

from pizza.completion import Completion, Request
from pizza.errors import BadRequestError
from pizza_openai import wire
from pizza_openai.build import usage_of
from pizza_openai.endpoint import ScoringEndpoint
from pizza_openai.scoring import (
    Found,
    align_echo,
    align_tail,
    echo_steps,
    prompt_steps,
    scored,
)


class CompletionsEndpoint(ScoringEndpoint):
    """``/completions``."""

    kind = "completions"
    path = "/completions"
    dialects = ("echo", "prompt_logprobs")

    def body(self, request: Request) -> dict[str, Any]:
        """Prompt text, length, sampling and log-probabilities."""
        generation = request.generation
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": self._text(request),
            "max_tokens": generation.max_tokens,
            "temperature": generation.temperature,
            **self.seed(request),
        }
        if generation.stop:
            body["stop"] = list(generation.stop)
        if request.logprobs:
            body["logprobs"] = self.top(request)
        return self.settings(request, body)

    def read(self, content: bytes, request: Request) -> Completion:
        """The first choice."""
        answer, choice = self._choice(content)
        if choice.finish_reason == "content_filter":
            raise self.errors.refused("finish_reason is 'content_filter'")
        return self.finished(
            request,
            text=choice.text or "",
            tokens=wire.parallel_tokens(choice.logprobs) if choice.logprobs else None,
            finish_reason=choice.finish_reason,
            usage=answer.usage,
            model=answer.model,
        )

    def score_body(self, request: Request, dialect: str) -> dict[str, Any]:
        """Prompt and target as one text.

        One token more is generated: with 0, some servers write until the context is full.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": self._text(request) + (request.target or ""),
            "max_tokens": 1,
            "temperature": 0.0,
        }
        if dialect == "echo":
            body |= {"echo": True, "logprobs": self.top(request)}
        else:
            body["prompt_logprobs"] = self.top(request)
        return self.settings(request, body)

    def read_score(self, content: bytes, request: Request, dialect: str) -> Completion | None:
        """The target's tokens, by their place in the echoed text."""
        answer, choice = self._choice(content)
        target = request.target or ""
        found: Found | None = None
        if dialect == "echo":
            logprobs = choice.logprobs
            if logprobs is not None and logprobs.tokens:
                found = align_echo(
                    echo_steps(logprobs),
                    logprobs.text_offset or (),
                    self._text(request),
                    target,
                    choice.text or "",
                )
        elif choice.prompt_logprobs:
            found = align_tail(prompt_steps(choice.prompt_logprobs), target, suffix="")
        if found is None:
            return None
        return scored(
            found.steps,
            top=self.top(request),
            usage=usage_of(answer.usage),
            model=answer.model or self.model,
        )

    def _choice(self, content: bytes) -> tuple[wire.Text, wire.TextChoice]:
        answer = self.decode(wire.text, content)
        if not answer.choices:
            raise self.errors.malformed("it holds no choices")
        return answer, answer.choices[0]

    def _text(self, request: Request) -> str:
        prompt = request.prompt
        if len(prompt.messages) > 1:
            raise BadRequestError(
                f"{self.errors.name}: the Completions endpoint takes one text, and this prompt "
                f"has {len(prompt.messages)} messages: use api='chat', or write them as one text.",
                backend=self.errors.name,
            )
        return prompt.messages[0].text
