# SPDX-License-Identifier: Apache-2.0
"""The prompt as an ordered sequence of pieces: units, fixed parts, and what is between them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pizza.attribution import Attribution
from pizza.prompt import FixedSpan, Unit
from pizza.render.text import one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stretch of one message.

    Attributes:
        text: As it stands in the prompt; not yet harmless.
        unit: Index of the unit that it is, or ``None``.
        score: The unit's score; NaN when it is undefined or the piece is no unit.
        fixed: Why it was never perturbed, or ``""``.
    """

    text: str
    unit: int | None = None
    score: float = math.nan
    fixed: str = ""


def pieces(attribution: Attribution, row: int = 0) -> list[list[Piece]]:
    """The pieces of every message; joined, they are its text.

    Args:
        attribution: The result.
        row: Row of the scores: 0 = whole output, ``1 + t`` = output token ``t``.
    """
    scores = attribution.scores[row].tolist()
    by_message: list[list[tuple[int, int, int]]] = [[] for _ in attribution.prompt.messages]
    for index, unit in enumerate(attribution.units):
        by_message[unit.message].append((unit.start, unit.end, index))
    return [
        list(_of_message(message.text, spans, attribution.prompt.fixed_in(number), scores))
        for number, (message, spans) in enumerate(
            zip(attribution.prompt.messages, by_message, strict=True)
        )
    ]


def _of_message(
    text: str,
    units: Sequence[tuple[int, int, int]],
    fixed: Sequence[FixedSpan],
    scores: Sequence[float],
) -> Iterator[Piece]:
    at = 0
    for start, end, index in sorted(units):
        if start > at:
            yield from _between(text, at, start, fixed)
        yield Piece(text=text[max(start, at) : end], unit=index, score=scores[index])
        at = max(at, end)
    if at < len(text):
        yield from _between(text, at, len(text), fixed)


def _between(text: str, start: int, end: int, fixed: Sequence[FixedSpan]) -> Iterator[Piece]:
    """What is in no unit: fixed spans, and white space that belongs to nobody."""
    at = start
    for span in fixed:
        left, right = max(span.start, at), min(span.end, end)
        if left >= right:
            continue
        if left > at:
            yield Piece(text=text[at:left])
        yield Piece(text=text[left:right], fixed=span.reason)
        at = right
    if at < end:
        yield Piece(text=text[at:end])


def strongest(scores: Sequence[float]) -> float:
    """The largest magnitude among scores that are defined; 0 when none is."""
    return max((abs(score) for score in scores if math.isfinite(score)), default=0.0)


def ranked(attribution: Attribution) -> list[tuple[Unit, int]]:
    """Units and their indices by magnitude of the whole-output score, undefined ones last."""
    scores = attribution.unit_scores.tolist()

    def key(index: int) -> tuple[bool, float, int]:
        score = scores[index]
        return (math.isnan(score), 0.0 if math.isnan(score) else -abs(score), index)

    return [(attribution.units[index], index) for index in sorted(range(len(scores)), key=key)]


def shortened(
    row: Sequence[Piece], *, limit: int, keep: frozenset[int], around: int
) -> list[Piece]:
    """A long message with only the neighbourhood of some units; the rest is counted.

    Args:
        row: The pieces of one message.
        limit: Characters up to which the message is left whole.
        keep: Indices of units to keep.
        around: Pieces kept on either side of them.
    """
    total = sum(len(piece.text) for piece in row)
    if total <= limit:
        return list(row)
    near = {
        position + offset
        for position, piece in enumerate(row)
        if piece.unit in keep and piece.unit is not None
        for offset in range(-around, around + 1)
    } or set(range(2 * around))
    result: list[Piece] = []
    skipped = 0
    for position, piece in enumerate(row):
        if position in near:
            if skipped:
                result.append(_gap(skipped))
                skipped = 0
            result += _cut(piece, limit // 2)
        else:
            skipped += len(piece.text)
    return [*result, _gap(skipped)] if skipped else result


def _cut(piece: Piece, limit: int) -> list[Piece]:
    if len(piece.text) <= limit:
        return [piece]
    half = limit // 2
    text = piece.text
    return [
        replace(piece, text=text[:half]),
        _gap(len(text) - 2 * half),
        replace(piece, text=text[-half:]),
    ]


def _gap(characters: int) -> Piece:
    return Piece(text=f" [... {characters:,} characters ...] ", fixed="not shown")


def told_apart(units: Sequence[Unit], limit: int = 48) -> list[str]:
    """The units' names on one line; those that occur several times are numbered."""
    names = [one_line(unit.name, limit) for unit in units]
    total = Counter(names)
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        several = total[name] > 1
        result.append(f"{name} ({seen[name]} of {total[name]})" if several else name)
    return result
