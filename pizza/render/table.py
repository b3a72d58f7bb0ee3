# SPDX-License-Identifier: Apache-2.0
"""The strongest units as a table: score, bar, unit, further metrics, the answer without it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table
from rich.text import Text

from pizza.attribution import Attribution
from pizza.render import scale
from pizza.render.facts import LEVEL
from pizza.render.pieces import strongest, told_apart
from pizza.render.text import harmless, one_line
from pizza.render.view import View

_GAP = 2
_UNIT = 16
_ANSWER = 24
_WIDE = 72


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """A column: its title, the least width it needs, and what it says of a unit."""

    title: str
    width: int
    cell: Callable[[int], Text]
    number: bool = False


def units_table(attribution: Attribution, indices: Sequence[int], view: View) -> tuple[Table, int]:
    """A table of units as wide as the terminal allows.

    Returns:
        The table, and how many further metrics did not fit into it.
    """
    columns = [*_scores(attribution, view), _bars(attribution, view), _names(attribution)]
    left = view.width - 2 - sum(column.width + _GAP for column in columns)
    further = [_metric(attribution, number) for number in range(1, len(attribution.results))]
    hidden = 0
    for column in [*further, *_answers(attribution)]:
        if column.width + _GAP <= left and not (hidden and column in further):
            columns.append(column)
            left -= column.width + _GAP
        else:
            hidden += column in further
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(
            Text(column.title),
            justify="right" if column.number else "left",
            no_wrap=column.number,
            min_width=column.width,
            overflow="fold",
        )
    for index in indices:
        table.add_row(*(column.cell(index) for column in columns))
    return table, hidden


def _metric(attribution: Attribution, number: int) -> _Column:
    result = attribution.results[number]
    scores = result.scores[0].tolist()
    digits = scale.digits_for(strongest(scores))
    title = harmless(result.metric, keep_newlines=False)
    texts = [scale.number(score, digits) for score in scores]
    width = max(len(title), *map(len, texts))
    return _Column(title=title, width=width, cell=lambda i: Text(texts[i]), number=True)


def _scores(attribution: Attribution, view: View) -> list[_Column]:
    columns = [_metric(attribution, 0)]
    if attribution.standard_errors is not None:
        digits = scale.digits_for(strongest(attribution.unit_scores.tolist()))
        low, high = attribution.confidence_intervals(LEVEL)[:, 0]
        wide = view.width >= _WIDE
        texts = [_interval(a, b, digits, wide=wide) for a, b in zip(low, high, strict=True)]
        title = f"{LEVEL:.0%} interval" if wide else f"± ({LEVEL:.0%})"
        width = max(len(title), *map(len, texts))
        # What may as well be nothing steps back.
        faint = (low <= 0) & (high >= 0)
        columns.append(
            _Column(
                title=title,
                width=width,
                cell=lambda i: Text(texts[i], style="dim" if faint[i] else ""),
                number=True,
            )
        )
    return columns


def _interval(low: float, high: float, digits: int, *, wide: bool) -> str:
    if math.isnan(low) or math.isnan(high):
        return "n/a"
    if wide:
        return f"{scale.number(low, digits)} to {scale.number(high, digits)}"
    return scale.number((high - low) / 2, digits).lstrip("+")


def _bars(attribution: Attribution, view: View) -> _Column:
    width = 12 if view.width >= 72 else 6
    scores = attribution.unit_scores.tolist()
    largest = strongest(scores)

    def cell(index: int) -> Text:
        part = scale.share(scores[index], largest)
        bar = scale.bar(part, width, unicode=view.unicode)
        return Text(bar, style=scale.bar_style(part))

    return _Column(title="", width=width, cell=cell)


def _names(attribution: Attribution) -> _Column:
    names = told_apart(attribution.units)
    width = min(_UNIT, max(map(len, names)))
    return _Column(title="unit", width=width, cell=lambda i: Text(names[i]))


def _answers(attribution: Attribution) -> list[_Column]:
    """What the model wrote without each unit, where it was asked to write."""
    written: dict[int, str] = {}
    evidence = attribution.evaluations
    for row, answer in zip(evidence.coalitions, evidence.answers, strict=True):
        absent = np.flatnonzero(~row)
        if answer is not None and len(absent) == 1:
            written[int(absent[0])] = answer.strip()
    if not written:
        return []
    usual = attribution.output.text.strip()
    said = {
        index: "the same" if text == usual else one_line(text, _ANSWER) or "(nothing)"
        for index, text in written.items()
    }
    title = "answer without it"

    def cell(index: int) -> Text:
        same = written.get(index) == usual
        return Text(said.get(index, ""), style="dim" if same else "")

    width = max(len(title), *map(len, said.values()))
    return [_Column(title=title, width=width, cell=cell)]
