# SPDX-License-Identifier: Apache-2.0
"""Built-in segmenters, one idea a file. This module only lists them and imports none."""

from __future__ import annotations

from pizza.specs import SegmenterSpec

_HERE = "pizza.segmenters"

SPECS: tuple[SegmenterSpec, ...] = (
    SegmenterSpec(
        name="token",
        target=f"{_HERE}.tokens:TokenSegmenter",
        summary="The model's own tokens (needs a tokenizer on this machine).",
    ),
    SegmenterSpec(
        name="word",
        target=f"{_HERE}.words:WordSegmenter",
        summary="Runs of characters between white space; single ideographs in Chinese text.",
    ),
    SegmenterSpec(
        name="sentence",
        target=f"{_HERE}.sentences:SentenceSegmenter",
        summary="Sentences, by rules (abbreviations, decimals, quotes, line breaks).",
    ),
    SegmenterSpec(
        name="paragraph",
        target=f"{_HERE}.paragraphs:ParagraphSegmenter",
        summary="Paragraphs: what stands between blank lines.",
    ),
    SegmenterSpec(
        name="message",
        target=f"{_HERE}.messages:MessageSegmenter",
        summary="Whole messages of a chat.",
    ),
    SegmenterSpec(
        name="slot",
        target=f"{_HERE}.slots:SlotSegmenter",
        summary="The slots of a template prompt.",
    ),
    SegmenterSpec(
        name="spans",
        target=f"{_HERE}.spans:SpanSegmenter",
        summary="Spans that you name: spans=[(start, end), (message, start, end, label), ...].",
    ),
    SegmenterSpec(
        name="regex",
        target=f"{_HERE}.regexes:RegexSegmenter",
        summary="Matches of a regular expression: pattern=...; rest=fixed or units.",
    ),
)
"""All built-in segmenters."""
