# SPDX-License-Identifier: Apache-2.0
"""Words: maximal runs of characters between white space, punctuation attached."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import regex  # type: ignore[import-untyped]

from pizza.abc import Resources, Segmenter
from pizza.prompt import Prompt, Unit
from pizza.segmenters._cutting import Span, units_of

_RUN = re.compile(r"\S+")

# Scripts that are written without spaces between words. Ideographs are units of their own (most
# carry a meaning); runs of one kana are particles, endings or loan words. The South-East Asian
# scripts need a dictionary to find words: there a run between spaces or punctuation is a unit.
_KANA_MARK = "\u30fc\uff70"  # the prolonged sound mark belongs to both kana and to no script
_HAN = r"\p{Han}"
_RUNS = ("Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan")
_CONTINUOUS = _HAN + "".join(rf"\p{{{name}}}" for name in _RUNS)
_HAS_CONTINUOUS = regex.compile(f"[{_CONTINUOUS}]")

# Opening marks go with what follows, all other punctuation with what precedes.
_OPENING = r"[\p{Ps}\p{Pi}]"
_PIECE = regex.compile(
    rf"{_OPENING}*+(?:{_HAN}\p{{M}}*+"
    + "".join(rf"|\p{{{name}}}[\p{{{name}}}\p{{M}}{_KANA_MARK}]*+" for name in _RUNS)
    + rf"|[^{_CONTINUOUS}\p{{Ps}}\p{{Pi}}]++|\Z)(?:(?!{_OPENING})\p{{P}})*+"
)


class WordSegmenter(Segmenter):
    """One unit per word. `str.isspace` says what white space is; punctuation stays attached.

    In text written without spaces, each Chinese character is a unit, runs of hiragana and of
    katakana are units, and Thai, Lao, Khmer, Burmese and Tibetan are cut at spaces and
    punctuation only (real words would need a dictionary: use ``token``, ``regex`` or ``spans``).
    """

    def segment(self, prompt: Prompt, resources: Resources) -> Sequence[Unit]:
        """The words of the prompt's free parts."""
        return units_of(prompt, word_spans, who="word")


def word_spans(text: str) -> Iterator[Span]:
    """Spans of the words of a text, in order."""
    continuous = not text.isascii() and _HAS_CONTINUOUS.search(text) is not None
    for run in _RUN.finditer(text):
        if continuous and not run.group().isascii():
            yield from _pieces(text, run.start(), run.end())
        else:
            yield run.span()


def _pieces(text: str, start: int, end: int) -> Iterator[Span]:
    if _HAS_CONTINUOUS.search(text, start, end) is None:
        yield start, end
        return
    for piece in _PIECE.finditer(text[start:end]):
        if piece.end() > piece.start():
            yield start + piece.start(), start + piece.end()
