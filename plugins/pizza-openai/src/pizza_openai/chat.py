# SPDX-License-Identifier: Apache-2.0
"""Chat Completions, and scoring of a given answer on servers of the vLLM kind."""

from __future__ import annotations

from typing import Any

from pizza.completion import Completion, Request
from pizza_openai import wire
from pizza_openai.build import usage_of
from pizza_openai.endpoint import ScoringEndpoint
from pizza_openai.scoring import align_tail, prompt_steps, scored


class ChatEndpoint(ScoringEndpoint):
    """``/chat/completions``."""

    kind = "chat"
    path = "/chat/completions"
    dialects = ("prompt_logprobs",)

    def body(self, request: Request) -> dict[str, Any]:
        """Messages, length, sampling and log-probabilities."""
        generation = request.generation
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages(request),
            self.learned.max_tokens_field: generation.max_tokens,
            "temperature": generation.temperature,
            **self.seed(request),
        }
        if generation.stop:
            body["stop"] = list(generation.stop)
        if request.logprobs:
            body["logprobs"] = True
            if self.top(request):
                body["top_logprobs"] = self.top(request)
        return self.settings(request, body)

    def read(self, content: bytes, request: Request) -> Completion:
        """The first choice."""
        answer = self.decode(wire.chat, content)
        if not answer.choices or answer.choices[0].message is None:
            raise self.errors.malformed("it holds no choices")
        choice = answer.choices[0]
        message = choice.message
        assert message is not None  # noqa: S101 - for the type checker
        if message.refusal:
            raise self.errors.refused(message.refusal)
        if choice.finish_reason == "content_filter":
            raise self.errors.refused("finish_reason is 'content_filter'")
        text = message.content or ""
        if isinstance(text, list):
            text = "".join(part.text or "" for part in text if part.type in ("text", ""))
        logprobs = choice.logprobs
        return self.finished(
            request,
            text=text,
            tokens=(logprobs.content or wire.parallel_tokens(logprobs)) if logprobs else None,
            finish_reason=choice.finish_reason,
            usage=answer.usage,
            model=answer.model,
        )

    def score_body(self, request: Request, dialect: str) -> dict[str, Any]:
        """The target as the last message, which the model is told to continue.

        One token more is generated because servers want to generate something; it is dropped.
        """
        return self.settings(
            request,
            {
                "model": self.model,
                "messages": [
                    *messages(request),
                    {"role": "assistant", "content": request.target},
                ],
                "continue_final_message": True,
                "add_generation_prompt": False,
                "prompt_logprobs": self.top(request),
                "max_tokens": 1,
                "temperature": 0.0,
            },
        )

    def read_score(self, content: bytes, request: Request, dialect: str) -> Completion | None:
        """The target's tokens, from the end of the prompt's."""
        answer = self.decode(wire.chat, content)
        if not answer.prompt_logprobs:
            return None
        steps = prompt_steps(answer.prompt_logprobs)
        found = align_tail(steps, request.target or "", suffix=self.learned.suffix)
        if found is None:
            return None
        self.learned.suffix = found.suffix
        return scored(
            found.steps,
            top=self.top(request),
            usage=usage_of(answer.usage),
            model=answer.model or self.model,
        )


def messages(request: Request) -> list[dict[str, str]]:
    """The prompt's messages as the chat endpoints take them."""
    return [{"role": m.role, "content": m.text} for m in request.prompt.messages]
