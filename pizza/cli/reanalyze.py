# SPDX-License-Identifier: Apache-2.0
"""``pizza reanalyze``: other scores from a saved result, without a request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pizza.cli.options import MEASURE, AsJson, Debug, Output, ShowAll, Top, option

if TYPE_CHECKING:
    from pizza.attribution import Attribution, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """The options, as they were given."""

    result: Path
    metrics: tuple[str, ...]
    method: str | None
    target: str | None
    contrast: str | None
    span: str | None
    seed: int | None
    skip: bool
    as_json: bool
    output: Path | None
    top: int
    show_all: bool
    debug: bool


def reanalyze(
    result: Annotated[
        Path,
        typer.Argument(
            metavar="RESULT.json",
            help="What pizza attribute wrote (--output or --json); - reads standard input.",
            show_default=False,
        ),
    ],
    metric: Annotated[
        list[str] | None,
        option(
            MEASURE,
            "How a change is measured; may be repeated. By default as in the run.",
            metavar="NAME",
        ),
    ] = None,
    method: Annotated[
        str | None,
        option(
            MEASURE, "What the scores are computed by. By default as in the run.", metavar="NAME"
        ),
    ] = None,
    target: Annotated[
        str | None,
        option(MEASURE, "Explain this one of the outputs that were measured.", metavar="TEXT"),
    ] = None,
    contrast: Annotated[
        str | None,
        option(
            MEASURE,
            "With --target: why that and not this. Two outputs that were measured, or two tokens "
            "that the model considered at one place.",
            metavar="TEXT",
        ),
    ] = None,
    span: Annotated[
        str | None,
        option(
            MEASURE,
            "Explain only these characters of the output, counted from 0; with --contrast: the "
            "place of the two tokens.",
            metavar="START:END",
        ),
    ] = None,
    seed: Annotated[
        int | None, option(MEASURE, "For everything random; the run's.", metavar="N")
    ] = None,
    skip_incomparable: Annotated[
        bool,
        option(
            MEASURE,
            "Leave out answers that a metric cannot use, instead of failing.",
            "--skip-incomparable",
        ),
    ] = False,
    as_json: AsJson = False,
    output: Output = None,
    top: Top = 8,
    show_all: ShowAll = False,
    debug: Debug = False,
) -> None:
    """Compute other scores from the answers that a result holds. Nothing is sent.

    Another metric, another output or part of it, a contrast, another method: whatever the answers
    say. What they do not say is refused, with what they do.
    """
    order = _Order(
        result=result,
        metrics=tuple(metric or ()),
        method=method,
        target=target,
        contrast=contrast,
        span=span,
        seed=seed,
        skip=skip_incomparable,
        as_json=as_json,
        output=output,
        top=top,
        show_all=show_all,
        debug=debug,
    )
    raise typer.Exit(_execute(order))


def _execute(order: _Order) -> int:
    from pizza.cli.consoles import err, orderly
    from pizza.cli.failures import INTERRUPTED, OK, report

    try:
        with orderly():
            attribution = _reanalyzed(order)
        if order.output is not None:
            attribution.save(order.output)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # the last place where it can be turned into an exit code
        return report(error, err(), debug=order.debug)
    _show(order, attribution)
    return OK


def _reanalyzed(order: _Order) -> Attribution:
    from pizza.cli.connection import check_output
    from pizza.cli.order import span_of
    from pizza.cli.reading import read_result
    from pizza.errors import ConfigError, IncomparableError
    from pizza.specs import parse_choice

    span = None if order.span is None else span_of(order.span)
    check_output(order.output)
    try:
        return read_result(order.result).reanalyze(
            metrics=[parse_choice(metric) for metric in order.metrics] or None,
            target=_target(order),
            span=span,
            method=None if order.method is None else parse_choice(order.method),
            seed=order.seed,
            on_incomparable="skip" if order.skip else "raise",
        )
    except IncomparableError as error:
        # No model is asked: what the answers do not hold was a wrong thing to ask for.
        raise ConfigError(str(error)) from error


def _target(order: _Order) -> Target | None:
    from pizza.attribution import Target
    from pizza.errors import ConfigError

    if order.contrast is None:
        return None if order.target is None else Target.given(order.target)
    if order.target is None:
        raise ConfigError(
            "--contrast names what was not chosen; name what was with --target, a text or a token."
        )
    return Target.contrast(order.target, order.contrast)


def _show(order: _Order, attribution: Attribution) -> None:
    from rich.text import Text

    from pizza.cli.consoles import err, out, show, view_for, write_json
    from pizza.render.terminal import attribution_view
    from pizza.render.text import harmless

    if order.as_json:
        write_json(attribution.to_dict())
        return
    console = out()
    show(
        console,
        attribution_view(attribution, view_for(console, top=order.top, everything=order.show_all)),
    )
    console.print(Text(harmless(_origin(attribution)), style="dim"), soft_wrap=True)
    if order.output is not None:
        err().print(Text(f"The result is in {harmless(str(order.output))}."), soft_wrap=True)


def _origin(attribution: Attribution) -> str:
    """Which run the answers are from."""
    told = attribution.provenance["reanalysis"]
    of = told["of"]
    name = (of.get("method") or {}).get("name") or "a method without a name"
    changed = ", ".join(told["changed"]) or "nothing"
    return (
        f"Computed from the answers of a run by {name} ({of['created_at'] or 'no date'}); "
        f"changed: {changed}. Nothing was sent."
    )
