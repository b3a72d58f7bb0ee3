# SPDX-License-Identifier: Apache-2.0
"""An evaluation on a terminal, or as plain text: a line per measure, beside what chance gives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pizza.render.facts import spending
from pizza.render.terminal import heading, warnings_view
from pizza.render.text import harmless, one_line, plural
from pizza.render.view import View

if TYPE_CHECKING:
    from pizza.evaluation.result import Evaluation, Faithfulness

_INDENT = (0, 0, 0, 2)
_BELOW = (0, 0, 0, 4)
_LEVELS = "▁▂▃▄▅▆▇█"
_LEVELS_ASCII = "_.-~+*%#"
_WIDE = 96
"""Columns from which the meaning stands in the line of the figure."""


def evaluation_view(
    evaluation: Evaluation, meanings: Mapping[str, str], view: View | None = None
) -> RenderableType:
    """Everything a person wants to see, as one renderable.

    Args:
        evaluation: The figures.
        meanings: Per measure, without its options, a few words on what it says.
        view: How to show it.
    """
    view = view or View()
    made = evaluation.provenance.get("attribution", {})
    method = _name(made.get("method")) if isinstance(made, Mapping) else ""
    parts: list[RenderableType] = [
        heading("Faithfulness", f"of {method}" if method else ""),
        *_figures(evaluation.results, meanings, view),
        *_curves(evaluation.results, view),
        *_facts(evaluation),
        *warnings_view(
            [
                *(f"{r.measure}: {said}." for r in evaluation.results for said in r.warnings),
                *evaluation.warnings,
            ]
        ),
    ]
    return Group(*parts)


# --- the figures -----------------------------------------------------------------------------


def _figures(
    results: Sequence[Faithfulness], meanings: Mapping[str, str], view: View
) -> Iterable[RenderableType]:
    names = [one_line(result.measure, 28) for result in results]
    values = [_figure(result) for result in results]
    chances = ["" if result.random is None else _number(result.random) for result in results]
    widths = [
        max(map(len, [title, *column]))
        for title, column in (("measure", names), ("value", values), ("random", chances))
    ]
    title = f"{'measure':<{widths[0]}}  {'value':>{widths[1]}}  {'random':>{widths[2]}}  better"
    yield Padding(Text(title, style="dim"), _INDENT)
    for result, name, value, chance in zip(results, names, values, chances, strict=True):
        line = Text(f"{name:<{widths[0]}}  ")
        line.append(f"{value:>{widths[1]}}", style="bold")
        line.append(f"  {chance:>{widths[2]}}", style="dim")
        line.append(f"  {'higher' if result.higher_is_better else 'lower':<6}", style="dim")
        meaning = _meaning(result, meanings)
        wide = view.width >= _WIDE
        if wide:
            line.append(f"  {meaning}")
        yield Padding(line, _INDENT)
        if not wide:
            yield Padding(Text(meaning, style="dim"), _BELOW)


def _meaning(result: Faithfulness, meanings: Mapping[str, str]) -> str:
    text = meanings.get(result.measure.partition(":")[0], "")
    if result.scale and result.scale not in ("share", "rank correlation"):
        text += f" ({harmless(result.scale, keep_newlines=False)})"
    if _no_better(result):
        text += "; no better than chance"
    return text


def _no_better(result: Faithfulness) -> bool:
    chance = result.random
    if chance is None or math.isnan(chance) or math.isnan(result.value):
        return False
    gain = result.value - chance if result.higher_is_better else chance - result.value
    return gain <= 0


def _figure(result: Faithfulness) -> str:
    text = _number(result.value)
    if result.standard_error is not None and not math.isnan(result.value):
        text += f" +- {_number(result.standard_error)}"
    return text


def _number(value: float) -> str:
    """Three significant figures or so; ``"n/a"`` when it is undefined."""
    if math.isnan(value):
        return "n/a"
    if value and (abs(value) >= 1e5 or abs(value) < 5e-4):
        return "0.000" if abs(value) < 1e-9 else f"{value:.1e}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3f}"


# --- the curves ------------------------------------------------------------------------------


def _curves(results: Sequence[Faithfulness], view: View) -> Iterable[RenderableType]:
    """Values from no unit taken to all, beside those of random orders."""
    shown = [result for result in results if len(_points(result, "values")) > 1]
    if not shown:
        return
    yield Text()
    yield heading("Curves", "one unit taken after the other, left to right")
    for result in shown:
        own, chance = _points(result, "values"), _points(result, "random_values")
        known = [x for x in (*own, *chance) if not math.isnan(x)]
        ends = (min(known, default=0.0), max(known, default=0.0))
        line = Text(f"{one_line(result.measure, 16):<10} {_spark(own, ends, view)}")
        if chance:
            line.append(f"  random {_spark(chance, ends, view)}", style="dim")
        yield Padding(line, _INDENT)


def _points(result: Faithfulness, name: str) -> list[float]:
    points = result.details.get(name)
    if not isinstance(points, (list, tuple)) or "area" not in result.details:
        return []
    return [float(x) if isinstance(x, (int, float)) else math.nan for x in points]


def _spark(values: Sequence[float], ends: tuple[float, float], view: View) -> str:
    low, high = ends
    levels = _LEVELS if view.unicode else _LEVELS_ASCII

    def level(value: float) -> str:
        if math.isnan(value):
            return "?"
        part = (value - low) / (high - low) if high > low else 1.0
        return levels[round(part * (len(levels) - 1))]

    return "".join(map(level, values))


# --- the facts -------------------------------------------------------------------------------


def _facts(evaluation: Evaluation) -> Iterable[RenderableType]:
    how = evaluation.provenance
    what = f"{plural(evaluation.n_units, 'unit')}, {evaluation.metric}"
    if perturbation := _name(how.get("perturbation")):
        what += f" with {perturbation}"
    rows = [("Model", one_line(str(how.get("backend", "unknown"))))]
    if evaluation.output_token is not None:
        rows.append(("Row", f"output token {evaluation.output_token}"))
    rows += [("Measured", harmless(what, keep_newlines=False)), ("Spent", spending(evaluation))]
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    for label, value in rows:
        grid.add_row(label, Text(value))
    yield Text()
    yield grid


def _name(part: Any) -> str:
    """A part of the provenance as the command line writes it."""
    if not isinstance(part, Mapping):
        return ""
    options = part.get("options") or {}
    inner = ",".join(f"{key}={value}" for key, value in options.items())
    return one_line(f"{part.get('name', '')}:{inner}" if inner else str(part.get("name", "")), 60)
