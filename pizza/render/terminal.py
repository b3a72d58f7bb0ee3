# SPDX-License-Identifier: Apache-2.0
"""An attribution on a terminal, or as plain text.

Colour is never the only carrier: without it, scores stand next to the words. Everything that came
from a prompt, a model or a plugin is made harmless first, and is never read as markup.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pizza.attribution import Attribution
from pizza.render import scale
from pizza.render.facts import facts
from pizza.render.pieces import Piece, pieces, ranked, shortened, strongest
from pizza.render.table import units_table
from pizza.render.text import harmless, one_line, plural
from pizza.render.view import View

_LONG = 4_000
"""Characters of a message above which only the neighbourhood of strong units is shown."""
_AROUND = 12
_INDENT = (0, 0, 0, 2)


def attribution_view(attribution: Attribution, view: View | None = None) -> RenderableType:
    """Everything a person wants to see first, as one renderable."""
    view = view or View()
    parts: list[RenderableType] = [
        *_prompt_section(attribution, view),
        *_output_section(attribution),
        *_table_section(attribution, view),
        *_facts_section(attribution),
        *warnings_view(attribution.warnings),
    ]
    return Group(*parts)


def plain_text(attribution: Attribution, *, width: int = 80, view: View | None = None) -> str:
    """The same as plain text without any escape sequence."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, force_terminal=False)
    view = view or View(color=False, width=width)
    console.print(attribution_view(attribution, view), highlight=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def heading(title: str, detail: str = "") -> Text:
    """A section's title."""
    text = Text(no_wrap=False)
    text.append(title, style="bold")
    if detail:
        text.append(f"  {harmless(detail, keep_newlines=False)}", style="dim")
    return text


# --- the prompt ------------------------------------------------------------------------------


def _prompt_section(attribution: Attribution, view: View) -> Iterable[RenderableType]:
    yield heading("Prompt", f"coloured by {attribution.metric}" if view.color else "")
    largest = strongest(attribution.unit_scores.tolist())
    rows = pieces(attribution)
    if not view.everything:
        keep = frozenset(index for _, index in ranked(attribution)[: view.top])
        rows = [shortened(row, limit=_LONG, keep=keep, around=_AROUND) for row in rows]
    chat = attribution.prompt.kind == "chat"
    for message, row in zip(attribution.prompt.messages, rows, strict=True):
        if chat:
            yield Padding(Text(harmless(message.role), style="italic dim"), _INDENT)
        yield Padding(heat(row, largest, view), _INDENT)
    yield Text()
    signed = attribution.provenance.get("signed", True) is not False
    yield Padding(legend(attribution.metric, largest, view, signed=signed), _INDENT)


def heat(row: Sequence[Piece], largest: float, view: View) -> Text:
    """One message with its units coloured, or marked with their scores."""
    digits = scale.digits_for(largest)
    text = Text()
    for piece in row:
        shown = harmless(piece.text)
        if piece.unit is None:
            text.append(shown, style="dim italic" if piece.fixed else "")
            continue
        part = scale.share(piece.score, largest)
        style = "underline" if math.isnan(piece.score) else scale.style(part)
        text.append(shown, style=style if view.color else "")
        if not view.color and (abs(part) >= scale.FAINT or math.isnan(piece.score)):
            text.append(f"[{scale.number(piece.score, digits)}]")
    return text


_SIGNED = "Positive: it supports the answer; negative: it works against it"
_UNSIGNED = "It says how strongly the answer reacts to the unit, not in which direction"


def legend(metric: str, largest: float, view: View, *, signed: bool = True) -> RenderableType:
    """What the colours, or the numbers beside the words, mean."""
    digits = scale.digits_for(largest)
    text = Text()
    if largest == 0:
        text.append(f"No unit changed the output under {harmless(metric)}.", style="dim")
        return text
    if not view.color:
        text.append(
            f"[{scale.number(largest, digits)}] after a unit: its {harmless(metric)} score. "
            f"{_SIGNED if signed else _UNSIGNED}; "
            f"unmarked: under {scale.FAINT:.0%} of the strongest."
        )
        return text
    ramp = scale.ramp_styles()
    if signed:
        text.append(f"works against {scale.number(-largest, digits)} ", style="dim")
    else:
        text.append("no reaction 0 ", style="dim")
        ramp = ramp[len(ramp) // 2 :]
    for style in ramp:
        text.append("  ", style=style)
    said = "supports" if signed else "strong reaction, for or against"
    text.append(f" {scale.number(largest, digits)} {said}", style="dim")
    return text


# --- the output ------------------------------------------------------------------------------


def _output_section(attribution: Attribution) -> Iterable[RenderableType]:
    target = attribution.target
    text = attribution.output.text
    title, detail = "Answer", ""
    if target.kind == "contrast":
        title, detail = "Contrast", f"why this and not {one_line(repr(target.versus), 60)}"
    elif target.kind in ("text", "label"):
        title, detail = "Target", "given, not written by the model"
    if attribution.output.finish_reason == "length":
        detail = "cut off at the longest output allowed (--max-tokens)"
    if target.span is not None:
        start, end = target.span
        detail = f"explained: characters {start} to {end}, {one_line(repr(text[start:end]), 40)}"
    yield Text()
    yield heading(title, detail)
    shown = harmless(text.strip()) or "(nothing)"
    if len(shown) > _LONG:
        shown = f"{shown[:_LONG]} [... {len(shown) - _LONG:,} characters ...]"
    yield Padding(Text(shown), _INDENT)


# --- the table -------------------------------------------------------------------------------


def _table_section(attribution: Attribution, view: View) -> Iterable[RenderableType]:
    order = ranked(attribution)
    shown = order if view.everything else order[: view.top]
    more = len(order) - len(shown)
    yield Text()
    yield heading("Strongest units", f"{len(shown)} of {len(order)}" if more else "")
    table, hidden = units_table(attribution, [index for _, index in shown], view)
    yield Padding(table, _INDENT)
    if hidden:
        said = f"{plural(hidden, 'more metric')} did not fit: use a wider terminal or --json"
        yield Padding(Text(said, style="dim"), _INDENT)


# --- the facts -------------------------------------------------------------------------------


def _facts_section(attribution: Attribution) -> Iterable[RenderableType]:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    for label, value in facts(attribution):
        grid.add_row(label, Text(value))
    yield Text()
    yield grid


def warnings_view(warnings: Sequence[str]) -> Iterable[RenderableType]:
    """What a reader of the scores should know."""
    if not warnings:
        return
    yield Text()
    yield heading("Note" if len(warnings) == 1 else "Notes")
    for warning in warnings:
        yield Padding(Text(f"! {harmless(warning)}", style="yellow"), _INDENT)


def hints(suggestions: Sequence[tuple[str, str]]) -> list[Text]:
    """Lines that say what to try next: what for, and the command.

    Print them with ``soft_wrap=True``: a command that the terminal wraps can still be copied whole.
    """
    lines = [Text(), heading("What to try next")]
    for why, command in suggestions:
        lines.append(Text(f"  {harmless(why)}", style="dim"))
        lines.append(Text(f"    {harmless(command)}"))
    return lines
