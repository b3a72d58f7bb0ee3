# SPDX-License-Identifier: Apache-2.0
"""What the three completion endpoints have in common: a request becomes a `Plan`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from pizza_embedded.inference import Job, Outcome
from pizza_embedded.runtime import Runtime
from pizza_embedded.server.errors import invalid

Body = TypeVar("Body")

MAX_TOP = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one request is answered.

    Attributes:
        jobs: What the model has to do.
        render: Turns the outcomes into the JSON body, given the answer's id.
        prefix: Of the answer's id, e.g. ``"chatcmpl-"``.
        repeatable: Whether the same request would get the same answer again.
        param: The parameter that holds the prompt, for error messages.
    """

    jobs: Sequence[Job]
    render: Callable[[Sequence[Outcome], str], dict[str, Any]]
    prefix: str
    repeatable: bool
    param: str

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts."""
        return sum(len(job.prompt) for job in self.jobs)

    @property
    def reserved_tokens(self) -> int:
        """Tokens that the request may use at most: what a limit is charged with beforehand."""
        return self.prompt_tokens + sum(job.max_tokens for job in self.jobs)


def read(body: bytes, decoder: msgspec.json.Decoder[Body]) -> Body:
    """Parse a request's body; unknown fields are ignored.

    Raises:
        ApiError: It is not JSON, or a field has the wrong type.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        param = path.strip("`.") or None
        where = f" for '{param}'" if param else ""
        raise invalid(f"Invalid value{where}: {message}.", param, "invalid_type") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(f"We could not parse the JSON body of your request: {error}.") from error


def refuse_stream(stream: bool | None) -> None:
    """Refuse to stream: this server answers in one piece."""
    if stream:
        raise invalid(
            "This server does not stream: leave 'stream' out or set it to false.",
            "stream",
            "unsupported_value",
        )


def in_range(name: str, value: float | None, least: float, most: float) -> None:
    """Refuse a number out of its range."""
    if value is not None and not least <= value <= most:
        raise invalid(
            f"Invalid '{name}': expected a value between {least:g} and {most:g}, got {value:g}.",
            name,
            "invalid_value",
        )


def stops(value: str | list[str] | None) -> tuple[str, ...]:
    """The stop strings of a request."""
    result = (value,) if isinstance(value, str) else tuple(value or ())
    if len(result) > 4:
        raise invalid("Invalid 'stop': at most 4 sequences.", "stop", "array_above_max_length")
    return result


def templated(
    runtime: Runtime, messages: Sequence[tuple[str, str]], *, generation_prompt: bool = True
) -> list[int]:
    """Token ids of chat messages.

    Raises:
        ApiError: A role is unknown, or there are no messages.
    """
    if not messages:
        raise invalid("Invalid 'messages': empty array.", "messages", "empty_array")
    try:
        ids, _ = runtime.apply_chat_template(messages, add_generation_prompt=generation_prompt)
    except ValueError as error:
        raise invalid(f"Invalid 'messages': {error}.", "messages", "invalid_value") from error
    return ids


def room(runtime: Runtime, prompt: Sequence[int], wanted: int | None) -> int:
    """The longest output of a request: what it wants, cut to what the context has room for."""
    left = max(1, runtime.context_length - len(prompt))
    return left if wanted is None else min(wanted, left)


def completed(
    kind: str,
    answer_id: str,
    model: str,
    runtime: Runtime,
    choices: list[dict[str, Any]],
    *,
    n_prompt: int,
    n_written: int,
) -> dict[str, Any]:
    """The body of an answer with choices.

    Args:
        kind: The object that it is, e.g. ``"chat.completion"``.
        answer_id: Its id.
        model: As it was asked for.
        runtime: What answered.
        choices: The choices.
        n_prompt: Tokens of the prompts, each counted once.
        n_written: Tokens of all outputs.
    """
    return {
        "id": answer_id,
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": {
            "prompt_tokens": n_prompt,
            "completion_tokens": n_written,
            "total_tokens": n_prompt + n_written,
        },
        "system_fingerprint": f"fp_{runtime.identity[:10]}",
    }


def seed_of(seed: int | None, choice: int) -> int | None:
    """The seed of one of several choices of a request."""
    return None if seed is None else seed + choice
