# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/chat/completions``, with vLLM's ``prompt_logprobs`` for scoring a given text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pizza_embedded.inference import Job, Outcome
from pizza_embedded.runtime import Runtime
from pizza_embedded.server.errors import invalid
from pizza_embedded.server.logprobs import chat_logprob, prompt_logprobs
from pizza_embedded.server.models import Models
from pizza_embedded.server.plan import (
    MAX_TOP,
    Plan,
    completed,
    in_range,
    read,
    refuse_stream,
    room,
    seed_of,
    stops,
    templated,
)

PATH = "/v1/chat/completions"


class Part(msgspec.Struct):
    """One part of a message's content."""

    type: str
    text: str | None = None


class ChatMessage(msgspec.Struct):
    """One message."""

    role: str
    content: str | list[Part] | None = None


class ChatBody(msgspec.Struct):
    """The fields of a request that mean something here."""

    model: str
    messages: list[ChatMessage]
    logprobs: bool | None = None
    top_logprobs: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    seed: int | None = None
    temperature: float | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    prompt_logprobs: int | None = None
    continue_final_message: bool = False
    add_generation_prompt: bool | None = None


_DECODER = msgspec.json.Decoder(ChatBody)


def plan(body: bytes, runtime: Runtime, models: Models) -> Plan:
    """Read a request.

    Raises:
        ApiError: It is refused.
    """
    request = read(body, _DECODER)
    _check(request, models)
    prompt = _prompt(request, runtime)
    wanted = request.max_completion_tokens
    top = (request.top_logprobs or 0) if request.logprobs else 0
    scored = request.prompt_logprobs if request.model != models.no_echo else None
    temperature = 1.0 if request.temperature is None else request.temperature
    jobs = [
        Job(
            prompt=prompt,
            # A message that is continued is written on where it stands.
            opens=not request.continue_final_message,
            max_tokens=room(runtime, prompt, request.max_tokens if wanted is None else wanted),
            temperature=temperature,
            seed=seed_of(request.seed, choice),
            top=max(top, scored or 0),
            stop=stops(request.stop),
            score_prompt=scored is not None and choice == 0,
        )
        for choice in range(request.n or 1)
    ]

    def render(outcomes: Sequence[Outcome], answer_id: str) -> dict[str, Any]:
        choices = [
            _choice(index, outcome, top if request.logprobs else None)
            for index, outcome in enumerate(outcomes)
        ]
        answer = completed(
            "chat.completion",
            answer_id,
            request.model,
            runtime,
            choices,
            n_prompt=len(prompt),
            n_written=sum(len(outcome.tokens) for outcome in outcomes),
        )
        if scored is not None:
            answer["prompt_logprobs"] = prompt_logprobs(outcomes[0].prompt, scored)
        return answer

    return Plan(
        jobs=jobs,
        render=render,
        prefix="chatcmpl-",
        repeatable=temperature == 0 or request.seed is not None,
        param="messages",
    )


def _check(request: ChatBody, models: Models) -> None:
    models.check(request.model)
    refuse_stream(request.stream)
    in_range("top_logprobs", request.top_logprobs, 0, MAX_TOP)
    in_range("prompt_logprobs", request.prompt_logprobs, 0, MAX_TOP)
    in_range("n", request.n, 1, 128)
    in_range("temperature", request.temperature, 0, 2)
    in_range("max_tokens", request.max_tokens, 1, 1 << 30)
    in_range("max_completion_tokens", request.max_completion_tokens, 1, 1 << 30)
    if request.top_logprobs is not None and not request.logprobs:
        raise invalid(
            "Invalid value for 'top_logprobs': 'logprobs' must be true when it is given.",
            "top_logprobs",
        )
    models.check_habits(
        request.model,
        logprobs="logprobs"
        if request.logprobs
        else ("prompt_logprobs" if request.prompt_logprobs is not None else None),
        strict={
            "max_tokens": request.max_tokens is not None,
            "temperature": request.temperature not in (None, 1),
            "stop": bool(request.stop),
        },
    )


def _prompt(request: ChatBody, runtime: Runtime) -> list[int]:
    messages = [(message.role, text_of(message.content)) for message in request.messages]
    if not request.continue_final_message:
        generation_prompt = request.add_generation_prompt is not False
        return templated(runtime, messages, generation_prompt=generation_prompt)
    if request.add_generation_prompt:
        raise invalid(
            "Cannot set both 'continue_final_message' and 'add_generation_prompt' to True.",
            "continue_final_message",
        )
    if len(messages) < 2 or messages[-1][0] != "assistant":
        raise invalid(
            "'continue_final_message' needs a final message with the role 'assistant', after at "
            "least one other message.",
            "messages",
        )
    return templated(runtime, messages[:-1]) + runtime.tokenizer.encode(messages[-1][1])


def text_of(content: str | list[Part] | None) -> str:
    """The text of a message's content.

    Raises:
        ApiError: A part of it is not a text.
    """
    if content is None or isinstance(content, str):
        return content or ""
    for part in content:
        if part.text is None:
            raise invalid(
                f"Invalid content part of type '{part.type}': this model reads text only.",
                "messages",
                "invalid_value",
            )
    return "".join(part.text or "" for part in content)


def _choice(index: int, outcome: Outcome, top: int | None) -> dict[str, Any]:
    logprobs = None
    if top is not None:
        content = [chat_logprob(token, top) for token in outcome.tokens]
        logprobs = {"content": content, "refusal": None}
    return {
        "index": index,
        "message": {
            "role": "assistant",
            "content": outcome.text,
            "refusal": None,
            "annotations": [],
        },
        "logprobs": logprobs,
        "finish_reason": outcome.finish_reason,
    }
