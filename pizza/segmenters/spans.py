# SPDX-License-Identifier: Apache-2.0
"""Spans that the user names."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from pizza.abc import Resources, Segmenter
from pizza.errors import ConfigError
from pizza.prompt import Prompt, Unit
from pizza.segmenters._rest import Rest, check_rest, with_rest


class SpanSegmenter(Segmenter):
    """One unit per span that the user names, exactly as named.

    Args:
        spans: Each is ``(start, end)`` of the first message or ``(message, start, end)``, half-open
            code-point positions, with a label as an optional last element. In any order.
        rest: ``"fixed"`` (the default): what no span names is never perturbed. ``"units"``: what
            stands between the spans becomes units too.
    """

    def __init__(self, spans: Sequence[Sequence[Any]], rest: Rest = "fixed") -> None:
        self._spans = tuple(_parse(span) for span in spans)
        self._rest = check_rest(rest)
        if not self._spans:
            raise ConfigError("the segmenter 'spans' was given no spans: name at least one.")

    def segment(self, prompt: Prompt, resources: Resources) -> Sequence[Unit]:
        """The named spans, in order.

        Raises:
            ConfigError: A span is empty, blank or outside of the prompt, two overlap each other,
                or one overlaps a fixed part.
        """
        units = [prompt.unit(m, start, end, label) for m, start, end, label in self._spans]
        units.sort(key=lambda unit: (unit.message, unit.start))
        for unit in units:
            if unit.text.isspace():
                raise ConfigError(f"the span {_shown(unit)} holds nothing but white space.")
        for first, second in itertools.pairwise(units):
            if first.message == second.message and second.start < first.end:
                raise ConfigError(
                    f"the spans {_shown(first)} and {_shown(second)} overlap: units are disjoint."
                )
        _refuse_fixed(prompt, units)
        return with_rest(prompt, units, self._rest)


def _parse(span: Sequence[Any]) -> tuple[int, int, int, str]:
    values = list(span) if isinstance(span, Sequence) and not isinstance(span, str) else []
    label = values.pop() if values and isinstance(values[-1], str) else ""
    if len(values) not in (2, 3) or not all(type(value) is int for value in values):
        raise ConfigError(
            f"a span is (start, end) or (message, start, end), with a label after that if you "
            f"like, not {span!r}."
        )
    message, start, end = (0, *values) if len(values) == 2 else values
    return message, start, end, label


def _refuse_fixed(prompt: Prompt, units: Sequence[Unit]) -> None:
    fixed = sorted(prompt.fixed, key=lambda span: (span.message, span.start))
    at = 0
    for unit in units:
        while at < len(fixed) and (fixed[at].message, fixed[at].end) <= (unit.message, unit.start):
            at += 1
        if at < len(fixed) and fixed[at].message == unit.message and fixed[at].start < unit.end:
            text = prompt.messages[unit.message].text[fixed[at].start : fixed[at].end]
            raise ConfigError(
                f"the span {_shown(unit)} overlaps {text[:40]!r} at ({fixed[at].start}, "
                f"{fixed[at].end}) of message {unit.message}, which is fixed "
                f"({fixed[at].reason}). Name spans outside of it, or make the prompt with "
                "keep_marks_fixed=False if it is a template mark."
            )


def _shown(unit: Unit) -> str:
    return f"({unit.message}, {unit.start}, {unit.end}) {unit.text[:40]!r}"
