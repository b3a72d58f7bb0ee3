# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/completions``: raw text in, raw text out, with ``echo``.

The prompt is continued as it stands; no chat template is put around it. Names of special tokens
in it (``<|user|>``, ``<|assistant|>``, ``<|end|>``, ...) stand for those tokens, so a client may
write the template itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

import msgspec

from pizza_embedded.inference import Job, Outcome, Token
from pizza_embedded.runtime import Runtime
from pizza_embedded.server.errors import invalid
from pizza_embedded.server.logprobs import clamp, prompt_logprobs, replaced
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
)

PATH = "/v1/completions"
DEFAULT_MAX_TOKENS = 16


class CompletionsBody(msgspec.Struct):
    """The fields of a request that mean something here."""

    model: str
    prompt: str | list[str | int | list[int]]
    echo: bool | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    max_tokens: int | None = None
    n: int | None = None
    seed: int | None = None
    temperature: float | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None


_DECODER = msgspec.json.Decoder(CompletionsBody)


def plan(body: bytes, runtime: Runtime, models: Models) -> Plan:
    """Read a request.

    Raises:
        ApiError: It is refused.
    """
    request = read(body, _DECODER)
    _check(request, models)
    prompts = _prompts(request.prompt, runtime)
    deaf = request.model == models.no_echo
    echo = bool(request.echo) and not deaf
    scored = None if deaf else request.prompt_logprobs
    temperature = 1.0 if request.temperature is None else request.temperature
    wanted = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    special = frozenset(runtime.tokenizer.special.values())
    jobs = [
        Job(
            prompt=prompt,
            opens=not prompt or prompt[-1] in special,
            max_tokens=room(runtime, prompt, wanted),
            temperature=temperature,
            seed=seed_of(request.seed, choice),
            top=max(request.logprobs or 0, scored or 0),
            stop=stops(request.stop),
            score_prompt=echo or scored is not None,
        )
        for prompt in prompts
        for choice in range(request.n or 1)
    ]

    def render(outcomes: Sequence[Outcome], answer_id: str) -> dict[str, Any]:
        choices: list[dict[str, Any]] = []
        for index, outcome in enumerate(outcomes):
            choice = _choice(index, outcome, request.logprobs, echo=echo)
            if scored is not None:
                choice["prompt_logprobs"] = prompt_logprobs(outcome.prompt, scored)
            choices.append(choice)
        return completed(
            "text_completion",
            answer_id,
            request.model,
            runtime,
            choices,
            n_prompt=sum(map(len, prompts)),
            n_written=sum(len(outcome.tokens) for outcome in outcomes),
        )

    return Plan(
        jobs=jobs,
        render=render,
        prefix="cmpl-",
        repeatable=temperature == 0 or request.seed is not None or wanted == 0,
        param="prompt",
    )


def _check(request: CompletionsBody, models: Models) -> None:
    models.check(request.model)
    if models.reasons(request.model):
        raise invalid(
            "This is a chat model and not supported in the v1/completions endpoint. Did you mean "
            "to use v1/chat/completions?",
            "model",
        )
    refuse_stream(request.stream)
    in_range("logprobs", request.logprobs, 0, MAX_TOP)
    in_range("prompt_logprobs", request.prompt_logprobs, 0, MAX_TOP)
    in_range("n", request.n, 1, 128)
    in_range("temperature", request.temperature, 0, 2)
    in_range("max_tokens", request.max_tokens, 0, 1 << 30)


def _prompts(prompt: str | list[str | int | list[int]], runtime: Runtime) -> list[list[int]]:
    """The prompts of a request: one or several, as texts or as token ids."""
    if isinstance(prompt, str):
        return [encode(prompt, runtime)]
    numbers = [item for item in prompt if isinstance(item, int)]
    if numbers and len(numbers) == len(prompt):
        return [_checked(numbers, runtime)]
    if numbers or not prompt:
        raise invalid("Invalid 'prompt': a text, texts, token ids or lists of them.", "prompt")
    return [
        encode(item, runtime) if isinstance(item, str) else _checked(item, runtime)
        for item in prompt
        if not isinstance(item, int)
    ]


def _checked(ids: list[int], runtime: Runtime) -> list[int]:
    if not all(0 <= token < runtime.vocab_size for token in ids):
        raise invalid(f"Invalid 'prompt': token ids are 0 to {runtime.vocab_size - 1}.", "prompt")
    return ids


def encode(text: str, runtime: Runtime) -> list[int]:
    """Token ids of a raw text in which the names of special tokens stand for themselves."""
    special = runtime.tokenizer.special
    ids: list[int] = []
    for piece in re.split(f"({'|'.join(map(re.escape, special))})", text):
        if piece in special:
            ids.append(special[piece])
        else:
            ids += runtime.tokenizer.encode(piece)
    return ids


def _choice(index: int, outcome: Outcome, top: int | None, *, echo: bool) -> dict[str, Any]:
    tokens = (*outcome.prompt, *outcome.tokens) if echo else outcome.tokens
    text = b"".join(token.data for token in tokens).decode("utf-8", "replace")
    return {
        "index": index,
        "text": text,
        "logprobs": None if top is None else _logprobs(tokens, top),
        "finish_reason": outcome.finish_reason,
    }


def _logprobs(tokens: Sequence[Token], top: int) -> dict[str, Any]:
    """The legacy shape: four lists, one entry per token; ``None`` where nothing comes before."""
    offsets: list[int] = []
    n_characters = 0
    for token in tokens:
        starts = [byte & 0xC0 != 0x80 for byte in token.data]
        # A token that starts inside a character counts as standing at that character.
        offsets.append(n_characters - (1 if starts and not starts[0] else 0))
        n_characters += sum(starts)
    return {
        "tokens": [replaced(token.data) for token in tokens],
        "token_logprobs": [
            None if token.logprob is None else clamp(token.logprob) for token in tokens
        ],
        "top_logprobs": [_alternatives(token, top) for token in tokens] if top else None,
        "text_offset": offsets,
    }


def _alternatives(token: Token, top: int) -> dict[str, float] | None:
    """Texts to log-probabilities; of two tokens with one text the better one counts.

    The text's own token is there even when it is not among the most probable ones.
    """
    if token.logprob is None:
        return None
    result: dict[str, float] = {}
    for _, data, value in islice(token.top, top):
        result.setdefault(replaced(data), clamp(value))
    result.setdefault(replaced(token.data), clamp(token.logprob))
    return result
