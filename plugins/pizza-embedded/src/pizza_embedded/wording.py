# SPDX-License-Identifier: Apache-2.0
"""Words that know what they say, and texts made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

UNKNOWN = "unknown"
"""The answer when the text does not say."""

_PUNCTUATION = ".,;:?!"

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a text.

    Attributes:
        text: The word without surrounding punctuation.
        slot: What it says, for example ``"1.number"`` (fact 1) or ``"q.name"`` (question); empty
            for words that carry nothing the answer depends on.
        before: What separates it from the word before (ignored at the start of a text).
        after: Punctuation or suffix glued to it.
        fixed: True for words of a template (``Q:``, ``A:``), which are never perturbed.
    """

    text: str
    slot: str = ""
    before: str = " "
    after: str = ""
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a document.

    Attributes:
        style: The kind of question, for example ``"how-many"``.
        words: Its words, in order.
        solve: The right answer given the set of slots that were lost.
        value_slots: Slots of the words that are the answer or that it is computed from.
        key_slots: Slots of the words that select the fact and what is asked about it.
    """

    style: str
    words: tuple[Word, ...]
    solve: Callable[[frozenset[str]], str]
    value_slots: frozenset[str]
    key_slots: frozenset[str]


@dataclass(frozen=True, slots=True)
class Problem:
    """A document with questions about it."""

    task: str
    document: tuple[Word, ...]
    questions: tuple[Question, ...]


def parse(template: str, prefix: str, values: Mapping[str, str]) -> tuple[Word, ...]:
    """Turn a template into words.

    Args:
        template: Words separated by spaces. ``slot=text`` gives a word a slot, ``{name}`` is
            filled from ``values``; a word whose slot has an empty text there is left out.
        prefix: Put before slot names, for example ``"1."``.
        values: Texts by name.

    Returns:
        The words.
    """
    words = []
    for token in template.split(" "):
        slot, separator, text = token.partition("=")
        if not separator:
            slot, text = "", token
        if slot and values.get(slot) == "":
            continue
        body = text.rstrip(_PUNCTUATION)
        after = text[len(body) :]
        if body.endswith("}'s"):
            body, after = body[:-2], "'s" + after
        words.append(Word(body.format(**values), prefix + slot if slot else "", after=after))
    return tuple(words)


def render(words: Sequence[Word]) -> tuple[str, list[Span]]:
    """Return the text of some words and the span of each (without its ``after``)."""
    pieces: list[str] = []
    spans: list[Span] = []
    length = 0
    for position, word in enumerate(words):
        before = word.before if position else ""
        start = length + len(before)
        spans.append((start, start + len(word.text)))
        pieces.append(before + word.text + word.after)
        length += len(pieces[-1])
    return "".join(pieces), spans
