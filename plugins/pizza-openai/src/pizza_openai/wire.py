# SPDX-License-Identifier: Apache-2.0
"""The parts of the servers' answers that are read, as structs.

Only the fields that are needed are declared: everything else (``bytes`` above all) is skipped
while decoding. ``gc=False`` keeps thousands of small objects out of the cyclic collector, which
costs half of the time with the ordinary response models.

Servers disagree in details, so the types are generous: alternatives come as a list or as a
dictionary, numbers may be missing or null.
"""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec

T = TypeVar("T")


class Alternative(msgspec.Struct, gc=False):
    """One of the most likely tokens."""

    token: str = ""
    logprob: float | None = None


class Token(msgspec.Struct, gc=False):
    """One output token."""

    token: str = ""
    logprob: float | None = None
    top_logprobs: list[Alternative] | dict[str, float | None] | None = None


class Part(msgspec.Struct, gc=False):
    """A piece of a message."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    logprobs: list[Token] | None = None


class Failure(msgspec.Struct, gc=False):
    """An error reported inside of an answer."""

    message: str | None = None
    code: str | int | None = None
    type: str | None = None


class Details(msgspec.Struct, gc=False):
    """What the output tokens were spent on."""

    reasoning_tokens: float | None = None


class Usage(msgspec.Struct, gc=False):
    """Token counts; the two families of endpoints name them differently."""

    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    completion_tokens_details: Details | None = None
    output_tokens_details: Details | None = None

    @property
    def reasoning(self) -> int:
        """Output tokens that were spent on hidden reasoning."""
        details = self.completion_tokens_details or self.output_tokens_details
        return int(details.reasoning_tokens or 0) if details else 0


# --- Chat Completions ------------------------------------------------------------------------


class ChatLogprobs(msgspec.Struct, gc=False):
    """``logprobs`` of a chat choice; a few servers send the fields of a text choice here."""

    content: list[Token] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None


class Message(msgspec.Struct, gc=False):
    """``message`` of a chat choice."""

    content: str | list[Part] | None = None
    refusal: str | None = None


class ChatChoice(msgspec.Struct, gc=False):
    """One choice."""

    message: Message | None = None
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None


class PromptToken(msgspec.Struct, gc=False):
    """A token of vLLM's ``prompt_logprobs``."""

    logprob: float | None = None
    decoded_token: str | None = None


PromptLogprobs = list[dict[str, PromptToken] | None]


class Chat(msgspec.Struct, gc=False):
    """The answer of ``/chat/completions``."""

    choices: list[ChatChoice] | None = None
    model: str | None = None
    usage: Usage | None = None
    error: Failure | str | None = None
    prompt_logprobs: PromptLogprobs | None = None


# --- Responses -------------------------------------------------------------------------------


class Item(msgspec.Struct, gc=False):
    """One output item."""

    type: str = ""
    content: list[Part] | None = None


class Incomplete(msgspec.Struct, gc=False):
    """Why the answer is not complete."""

    reason: str | None = None


class Response(msgspec.Struct, gc=False):
    """The answer of ``/responses``."""

    output: list[Item] | None = None
    model: str | None = None
    usage: Usage | None = None
    status: str | None = None
    incomplete_details: Incomplete | None = None
    error: Failure | str | None = None


# --- Completions -----------------------------------------------------------------------------


class TextLogprobs(msgspec.Struct, gc=False):
    """``logprobs`` of a text choice."""

    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None
    text_offset: list[int] | None = None


class TextChoice(msgspec.Struct, gc=False):
    """One choice."""

    text: str | None = None
    logprobs: TextLogprobs | None = None
    finish_reason: str | None = None
    prompt_logprobs: PromptLogprobs | None = None


class Text(msgspec.Struct, gc=False):
    """The answer of ``/completions``."""

    choices: list[TextChoice] | None = None
    model: str | None = None
    usage: Usage | None = None
    error: Failure | str | None = None


# --- Models and errors -----------------------------------------------------------------------


class Model(msgspec.Struct, gc=False):
    """One model of the list."""

    id: str = ""


class Models(msgspec.Struct, gc=False):
    """The answer of ``/models``."""

    data: list[Model] | None = None


def parallel_tokens(logprobs: ChatLogprobs | TextLogprobs) -> list[Token] | None:
    """The tokens of the older form: parallel lists of texts, values and alternatives."""
    if logprobs.tokens is None:
        return None
    values = logprobs.token_logprobs or []
    rows = logprobs.top_logprobs or []
    return [
        Token(
            token=token,
            logprob=values[index] if index < len(values) else None,
            top_logprobs=rows[index] if index < len(rows) else None,
        )
        for index, token in enumerate(logprobs.tokens)
    ]


class Counted(msgspec.Struct, gc=False):
    """Any answer of which only the cost is wanted."""

    usage: Usage | None = None


chat = msgspec.json.Decoder(Chat)
response = msgspec.json.Decoder(Response)
text = msgspec.json.Decoder(Text)
models = msgspec.json.Decoder(Models)
counted = msgspec.json.Decoder(Counted)
encode = msgspec.json.Encoder().encode


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The body as the decoder's struct.

    Raises:
        ValueError: It is not JSON, or not of this shape.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # Python's json writes NaN and Infinity, which are not JSON; some servers send them.
        if b"NaN" not in body and b"Infinity" not in body:
            raise
        made: T = msgspec.convert(json.loads(body), decoder.type)
        return made
