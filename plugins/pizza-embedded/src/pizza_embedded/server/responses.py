# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/responses``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from pizza_embedded.inference import Job, Outcome
from pizza_embedded.runtime import Runtime
from pizza_embedded.server.chat import Part, text_of
from pizza_embedded.server.logprobs import chat_logprob
from pizza_embedded.server.models import Models
from pizza_embedded.server.plan import MAX_TOP, Plan, in_range, read, refuse_stream, room, templated

PATH = "/v1/responses"
LOGPROBS = "message.output_text.logprobs"


class InputMessage(msgspec.Struct):
    """One message of the input."""

    role: str
    content: str | list[Part]


class ResponsesBody(msgspec.Struct):
    """The fields of a request that mean something here."""

    model: str
    input: str | list[InputMessage]
    instructions: str | None = None
    include: list[str] | None = None
    top_logprobs: int | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    stream: bool | None = None


_DECODER = msgspec.json.Decoder(ResponsesBody)


def plan(body: bytes, runtime: Runtime, models: Models) -> Plan:
    """Read a request.

    Raises:
        ApiError: It is refused.
    """
    request = read(body, _DECODER)
    wants_logprobs = LOGPROBS in (request.include or ())
    _check(request, models, wants_logprobs=wants_logprobs)
    if isinstance(request.input, str):
        messages = [("user", request.input)]
    else:
        messages = [(message.role, text_of(message.content)) for message in request.input]
    if request.instructions:
        messages.insert(0, ("developer", request.instructions))
    prompt = templated(runtime, messages)
    temperature = 1.0 if request.temperature is None else request.temperature
    top = (request.top_logprobs or 0) if wants_logprobs else 0
    job = Job(
        prompt=prompt,
        max_tokens=room(runtime, prompt, request.max_output_tokens),
        temperature=temperature,
        top=top,
    )

    def render(outcomes: Sequence[Outcome], answer_id: str) -> dict[str, Any]:
        return _answer(
            request, outcomes[0], answer_id, len(prompt), top if wants_logprobs else None
        )

    return Plan(
        jobs=[job], render=render, prefix="resp_", repeatable=temperature == 0, param="input"
    )


def _check(request: ResponsesBody, models: Models, *, wants_logprobs: bool) -> None:
    models.check(request.model)
    refuse_stream(request.stream)
    in_range("top_logprobs", request.top_logprobs, 0, MAX_TOP)
    in_range("temperature", request.temperature, 0, 2)
    in_range("max_output_tokens", request.max_output_tokens, 1, 1 << 30)
    asked = "include" if wants_logprobs else ("top_logprobs" if request.top_logprobs else None)
    models.check_habits(
        request.model,
        logprobs=asked,
        strict={"temperature": request.temperature not in (None, 1)},
    )


def _answer(
    request: ResponsesBody, outcome: Outcome, answer_id: str, n_prompt: int, top: int | None
) -> dict[str, Any]:
    complete = outcome.finish_reason == "stop"
    status = "completed" if complete else "incomplete"
    text = {
        "type": "output_text",
        "text": outcome.text,
        "annotations": [],
        "logprobs": [] if top is None else [chat_logprob(token, top) for token in outcome.tokens],
    }
    message = {
        "type": "message",
        "id": answer_id.replace("resp_", "msg_", 1),
        "status": status,
        "role": "assistant",
        "content": [text],
    }
    n_written = len(outcome.tokens)
    return {
        "id": answer_id,
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "error": None,
        "incomplete_details": None if complete else {"reason": "max_output_tokens"},
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": {},
        "model": request.model,
        "output": [message],
        "parallel_tool_calls": True,
        "temperature": request.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": n_prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": n_written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": n_prompt + n_written,
        },
    }
