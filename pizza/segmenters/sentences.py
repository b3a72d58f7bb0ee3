# SPDX-License-Identifier: Apache-2.0
"""Sentences, by rules: no model, no download.

A sentence ends after ``.``, ``!``, ``?``, an ellipsis or another script's full stop, closing quotes
included, when white space follows (not needed after the CJK full stops). A full stop does not end
one after an abbreviation, an initial or a list number, nor before a lower-case letter. Blank lines
always end a sentence; single line breaks do unless the line looks like wrapped prose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pizza.abc import Resources, Segmenter
from pizza.prompt import Prompt, Unit
from pizza.segmenters._cutting import Span, units_of
from pizza.segmenters.paragraphs import paragraph_spans

_CLOSING = "\"'”’»›)\\]}」』）】〉》*_"
_OPENING = "\"'“‘«‹([{「『（【〈《*_¿¡"
_ANY_STOP = ".!?…‼⁇⁈⁉؟۔।॥။።։"
_WIDE_STOP = "。！？｡"
# No look-ahead here: a run of stops is consumed once, which keeps the scan linear.
_STOP = re.compile(f"[{_ANY_STOP}{_WIDE_STOP}]+[{_CLOSING}]*")
_LIST_ITEM = re.compile(r"(?:[-*+•‣–—#>|]|\(?(?:\d{1,3}|[A-Za-z])[.)])(?=\s)")

# A wrapped line of prose is at least this long; shorter lines are items, headings, verses.
_WRAPPED = 60
# The longest abbreviation or number that is looked for before a full stop.
_LOOK_BACK = 16


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_TITLES = _listed(
    "mr mrs ms mx dr prof st rev fr hon gov sen rep gen col maj capt cpt lt sgt cmdr mt ft messrs "
    "vs v cf e.g i.e eg ie viz approx ca dept univ assn bros sra srta m mme mlle bzw z.b"
)
_BEFORE_NUMBERS = _listed("no nos nr fig figs eq eqs p pp ch sec vol art ed para tab ref")
_BEFORE_NAMES = _listed(
    "inc ltd co corp jr sr al llc jan feb mar apr jun jul aug sep sept oct nov dec ph.d m.d b.a m.a"
)
_BEFORE_CAPITALS = _listed("etc a.m p.m am pm")
_STARTERS = _listed(
    "a after all also although an and as at because before both but by did do does during each "
    "even every for from given has have he here his how however i if in is it its just many most "
    "my no not now of on once one only or our please she since so some such that the their then "
    "there these they this those to under until we what when where which while who why with "
    "would yet you your"
)


class SentenceSegmenter(Segmenter):
    """One unit per sentence; the rules are in this module's docstring."""

    def segment(self, prompt: Prompt, resources: Resources) -> Sequence[Unit]:
        """The sentences of the prompt's free parts."""
        return units_of(prompt, sentence_spans, who="sentence")


def sentence_spans(text: str) -> Iterator[Span]:
    """Spans of the sentences of a text, in order; each lies in one paragraph."""
    # In text without any capitals a lower-case letter after a full stop says nothing.
    has_case = any(character.isupper() for character in text)
    for start, end in paragraph_spans(text):
        at = start
        for stop in _ends(text, start, end, has_case=has_case):
            if stop > at:
                yield at, stop
                at = stop
        if at < end and not text[at:end].isspace():
            yield at, end


def _ends(text: str, start: int, end: int, *, has_case: bool) -> list[int]:
    ends = [
        match.end()
        for match in _STOP.finditer(text, start, end)
        if _ends_sentence(text, match, start, end, has_case=has_case)
    ]
    line = start
    while (after := text.find("\n", line, end) + 1) > 0:
        if after < end and _breaks(text, line, after, end):
            ends.append(after)
        line = after
    return sorted(ends)


def _breaks(text: str, line: int, after: int, end: int) -> bool:
    """Whether the line break before ``after`` ends a sentence that had no full stop."""
    follows = _skip_blanks(text, after, end)
    if follows == end:
        return False
    if _LIST_ITEM.match(text, follows, end):
        return True
    return after - line <= _WRAPPED and not text[follows].islower()


def _ends_sentence(
    text: str, match: re.Match[str], start: int, end: int, *, has_case: bool
) -> bool:
    stops = match.group().rstrip(_CLOSING.replace("\\", ""))
    quoted = len(stops) < len(match.group())
    if stops[-1] in _WIDE_STOP:
        return True
    if match.end() < end and not text[match.end()].isspace():
        return False
    follows = _skip_blanks(text, match.end(), end, _OPENING)
    if follows == end:
        return True
    lower = text[follows].islower()
    if stops == ".":
        if lower and has_case:
            return False
        return not _abbreviates(text, match.start(), start, follows, end)
    if stops[-1] in ".…":
        return not lower
    return not (quoted and lower)


def _abbreviates(text: str, stop: int, start: int, follows: int, end: int) -> bool:
    """Whether the full stop at ``stop`` belongs to an abbreviation, an initial or a list number."""
    before = text[max(start, stop - _LOOK_BACK) : stop]
    words = before.split()
    if not words or before[-1].isspace():
        return False
    word = words[-1].lstrip(_OPENING)
    if word.isdigit() or (len(word) == 1 and word.isalpha()):
        line = text[max(start, stop - _LOOK_BACK) : stop].rpartition("\n")[2]
        opens_line = line.strip() == words[-1] and ("\n" in before or stop - len(before) == start)
        if opens_line:
            return True
    lower = word.lower()
    if lower in _TITLES:
        return True
    if lower in _BEFORE_NUMBERS:
        return text[follows].isdigit()
    if lower in _BEFORE_CAPITALS:
        return not text[follows].isupper()
    initial = len(word) == 1 and word.isupper() and word != "I"
    dotted = "." in word and all(len(part) == 1 for part in word.split("."))
    if initial or dotted or lower in _BEFORE_NAMES:
        following = re.match(r"\w+", text[follows : min(end, follows + _LOOK_BACK)])
        return following is None or following.group().lower() not in _STARTERS
    return False


def _skip_blanks(text: str, at: int, end: int, also: str = "") -> int:
    while at < end and (text[at].isspace() or text[at] in also):
        at += 1
    return at
