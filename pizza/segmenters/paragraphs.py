# SPDX-License-Identifier: Apache-2.0
"""Paragraphs: what stands between blank lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pizza.abc import Resources, Segmenter
from pizza.prompt import Prompt, Unit
from pizza.segmenters._cutting import Span, units_of


class ParagraphSegmenter(Segmenter):
    """One unit per paragraph. A line of nothing but white space ends a paragraph."""

    def segment(self, prompt: Prompt, resources: Resources) -> Sequence[Unit]:
        """The paragraphs of the prompt's free parts."""
        return units_of(prompt, paragraph_spans, who="paragraph")


def paragraph_spans(text: str) -> Iterator[Span]:
    """Spans of maximal runs of lines that are not blank, with their last line break."""
    at = 0
    start: int | None = None
    for line in text.splitlines(keepends=True):
        if not line or line.isspace():
            if start is not None:
                yield start, at
            start = None
        elif start is None:
            start = at
        at += len(line)
    if start is not None:
        yield start, at
