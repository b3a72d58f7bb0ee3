# SPDX-License-Identifier: Apache-2.0
"""The model's tokens that units are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pizza.abc import Resources, Tokenizer
from pizza.errors import CapabilityError, EncodingUnavailableError
from pizza.prompt import Prompt, Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One token's share of a unit.

    Attributes:
        before: White space of the unit that stands before the token's text; kept as it is.
        text: The rest of it, without surrounding white space; never empty.
        spaced: Whether white space stands directly before ``text`` in its message, or nothing:
            most vocabularies have other tokens for the starts of words.
    """

    before: str
    text: str
    spaced: bool


def tokenizer_or_none(resources: Resources) -> Tokenizer | None:
    """The tokenizer in use, or ``None`` when this machine or model has none."""
    try:
        return resources.tokenizer()
    except (CapabilityError, EncodingUnavailableError):
        return None


def pieces(
    prompt: Prompt, units: Sequence[Unit], tokenizer: Tokenizer | None
) -> list[tuple[tuple[Piece, ...], str]]:
    """The tokens of each unit, and the white space that the unit ends with.

    Tokens are those of the whole message; one that reaches over a unit's end is cut there.
    Without a tokenizer a unit's words stand for its tokens.

    Returns:
        One pair per unit. Joining all ``before + text`` and the trailing white space gives the
        unit's text back. A unit of nothing but white space has no pieces.
    """
    spans: list[Sequence[tuple[int, int]]] = []
    for index, message in enumerate(prompt.messages):
        wanted = tokenizer is not None and any(unit.message == index for unit in units)
        spans.append(tokenizer.spans(message.text) if tokenizer and wanted else ())
    result = []
    at, message_now = 0, -1
    for unit in units:
        if unit.message != message_now:
            at, message_now = 0, unit.message
        text = prompt.messages[unit.message].text
        if tokenizer is None:
            result.append(_cut(text, unit, _words(unit)))
            continue
        tokens = spans[unit.message]
        while at < len(tokens) and tokens[at][1] <= unit.start:
            at += 1
        stop = at
        while stop < len(tokens) and tokens[stop][0] < unit.end:
            stop += 1
        result.append(_cut(text, unit, tokens[at:stop]))
    return result


def _words(unit: Unit) -> list[tuple[int, int]]:
    spans, at = [], unit.start
    for word in unit.text.split():
        start = unit.start + unit.text.index(word, at - unit.start)
        at = start + len(word)
        spans.append((start, at))
    return spans


def _cut(text: str, unit: Unit, tokens: Sequence[tuple[int, int]]) -> tuple[tuple[Piece, ...], str]:
    made: list[Piece] = []
    at = unit.start
    for low, high in tokens:
        start, end = max(low, unit.start), min(high, unit.end)
        stripped = text[start:end].strip()
        if not stripped:
            continue
        begin = start + len(text[start:end]) - len(text[start:end].lstrip())
        spaced = begin == 0 or text[begin - 1].isspace()
        made.append(Piece(before=text[at:begin], text=stripped, spaced=spaced))
        at = begin + len(stripped)
    return tuple(made), text[at : unit.end]
