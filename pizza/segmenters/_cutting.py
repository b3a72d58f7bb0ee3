# SPDX-License-Identifier: Apache-2.0
"""From cuts of a text to units of a prompt: the rules that all segmenters share.

* A unit lies in one free span: fixed parts cut it in two.
* White space (`str.isspace`) around a unit is left out of it, and a cut of nothing but white space
  is no unit: strategies then keep the white space where it is.
* Two units never share a grapheme (a character with its combining marks, a flag, a joined emoji),
  except where the segmenter is meant to cut there (model tokens, spans, regular expressions).

Cost: linear in the text's length plus the number of cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import regex  # type: ignore[import-untyped]

from pizza.errors import ConfigError
from pizza.prompt import Prompt, Unit

Span = tuple[int, int]

_GRAPHEME = regex.compile(r"\X")


def grapheme_starts(text: str) -> frozenset[int]:
    """Positions where a grapheme cluster (Unicode Standard Annex 29) starts, and the text's end."""
    starts = {match.start() for match in _GRAPHEME.finditer(text)}
    return frozenset(starts | {len(text)})


def units_of(
    prompt: Prompt,
    cut: Callable[[str], Iterable[Span]],
    *,
    who: str,
    whole_graphemes: bool = True,
) -> list[Unit]:
    """The units that a cutting function gives.

    Args:
        prompt: The prompt.
        cut: Gives ordered, disjoint spans of one message's whole text. What it leaves out must be
            white space, or is left out of the units on purpose.
        who: The segmenter's name, for errors.
        whole_graphemes: Join touching cuts that share a grapheme.

    Raises:
        ConfigError: There is no unit.
    """
    units: list[Unit] = []
    for index, message in enumerate(prompt.messages):
        free = prompt.free_spans(index)
        if not free:
            continue
        spans: Iterable[Span] = cut(message.text)
        if whole_graphemes and not message.text.isascii():
            spans = _join_cut_graphemes(message.text, spans)
        for start, end in _trimmed(message.text, _intersection(spans, free)):
            units.append(prompt.unit(index, start, end))
    return require_units(units, prompt, who=who)


def require_units(units: list[Unit], prompt: Prompt, *, who: str) -> list[Unit]:
    """``units``, unless there are none.

    Raises:
        ConfigError: There is nothing to perturb.
    """
    if not units:
        why = " besides its fixed parts" if prompt.fixed else ""
        raise ConfigError(
            f"the segmenter {who!r} finds nothing to perturb in this prompt{why}. Use another "
            "kind of unit, or fix less of the prompt."
        )
    return units


def trim(text: str, start: int, end: int, lowest: int | None = None) -> Span:
    """The span without the white space at its two ends; empty when there is nothing else.

    A combining mark after a blank is drawn on the blank, and the two are one grapheme: then the
    span starts with that blank, unless it lies before ``lowest`` (``start`` by default).
    """
    first = start if lowest is None else lowest
    piece = text[start:end]
    kept = piece.lstrip()
    start = end - len(kept)
    end = start + len(kept.rstrip())
    if first < start < end and text[start] >= "\u0300":
        lead = _GRAPHEME.match(text, start - 1, start + 1)
        start -= int(lead.end() > start)
    return start, end


def _trimmed(text: str, spans: Iterable[tuple[int, int, int]]) -> Iterator[Span]:
    at = 0
    for first, last, lowest in spans:
        start, end = trim(text, first, last, max(lowest, at))
        if start < end:
            yield start, end
            at = end


def _intersection(spans: Iterable[Span], free: Sequence[Span]) -> Iterator[tuple[int, int, int]]:
    """The parts of ``spans`` that lie in ``free`` (both ordered and disjoint).

    Each comes with the start of its free span.
    """
    if len(free) == 1:
        ((first, last),) = free
        for start, end in spans:
            low, high = max(start, first), min(end, last)
            if low < high:
                yield low, high, first
        return
    at = 0
    for start, end in spans:
        while at < len(free) and free[at][1] <= start:
            at += 1
        look = at
        while look < len(free) and free[look][0] < end:
            low, high = max(start, free[look][0]), min(end, free[look][1])
            if low < high:
                yield low, high, free[look][0]
            look += 1
        at = max(at, look - 1)


def _join_cut_graphemes(text: str, spans: Iterable[Span]) -> Iterator[Span]:
    starts = grapheme_starts(text)
    held: Span | None = None
    for start, end in spans:
        if held is not None and held[1] == start and start not in starts:
            held = (held[0], end)
            continue
        if held is not None:
            yield held
        held = (start, end)
    if held is not None:
        yield held
