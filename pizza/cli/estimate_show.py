# SPDX-License-Identifier: Apache-2.0
"""Runs an estimate and shows its plans side by side."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pizza.cli.connection import check_output
from pizza.cli.consoles import err, orderly, out, show, write_json
from pizza.cli.failures import INTERRUPTED, OK, report
from pizza.cli.run_order import RunOrder
from pizza.render.text import harmless, plural

if TYPE_CHECKING:
    from pizza.bulk import Plan
    from pizza.bulk.estimating import RowPlan


def execute(order: RunOrder, per_prompt: Path | None = None) -> int:
    """Estimate; return the exit code.

    Args:
        order: What for.
        per_prompt: Where a line per prompt and method goes, or ``None``.
    """
    console = err()
    variables = (order.api_key_env,) if order.api_key_env else ()
    try:
        with orderly(), _lines(per_prompt) as on_row:
            from pizza import bulk

            options = order.estimate_options()
            plans = asyncio.run(bulk.estimate(order.rows, on_row=on_row, **options))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # the last place where it can be turned into an exit code
        return report(error, console, debug=order.debug, variables=variables)
    if order.as_json:
        write_json({"plans": [plan_dict(plan) for plan in plans]})
    else:
        _show(out(), plans)
    return OK


@contextlib.contextmanager
def _lines(path: Path | None) -> Iterator[Callable[[str, RowPlan], None] | None]:
    """Something that writes a line per prompt and method, if there is somewhere to."""
    if path is None:
        yield None
        return
    check_output(path, "--per-prompt")
    with path.open("w", encoding="utf-8") as file:

        def write(method: str, plan: RowPlan) -> None:
            line = {"method": method, **dataclasses.asdict(plan)}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

        yield write


def plan_dict(plan: Plan) -> dict[str, Any]:
    """Plain JSON values."""
    return {**dataclasses.asdict(plan), "cost": plan.cost}


def _show(console: Console, plans: Sequence[Plan]) -> None:
    first = plans[0]
    title = plural(first.rows, "row")
    if first.rehearsed < first.rows:
        title += f", scaled up from {first.rehearsed:,}"
    console.print(Text(title))
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for name in ("requests", "range", "cached", "tokens in", "tokens out", "dollars", "minutes"):
        table.add_column(name, justify="right")
    for plan in plans:
        most = "any" if plan.most is None else _short(plan.most)
        table.add_row(
            harmless(plan.method),
            f"{plan.requests:,}",
            f"{plan.fewest:,}" if plan.fewest == plan.most else f"{plan.fewest:,} - {most}",
            f"{plan.cached:,}",
            f"{plan.prompt_tokens:,}",
            f"{plan.output_tokens:,}",
            "?" if plan.cost is None else f"{plan.cost:,.2f}",
            "?" if plan.minutes is None else f"{plan.minutes:,.1f}",
        )
    show(console, table)
    for line in _said(plans):
        console.print(Text(harmless(line)), soft_wrap=True)


def _short(number: int) -> str:
    """A number in few characters; what is this large is not known to the last digit."""
    for scale, name in ((10**9, "G"), (10**6, "M")):
        if number >= scale:
            return f"{number / scale:.1f}{name}"
    return f"{number:,}"


def _said(plans: Sequence[Plan]) -> list[str]:
    first = plans[0]
    lines = ["Outputs are taken to be as long as they may: tokens out and dollars are at most."]
    if first.largest:
        dearest = ", ".join(
            f"{row.id} ({row.requests:,} for {plural(row.units, 'unit')})" for row in first.largest
        )
        lines.append(f"Most requests, {first.method}: {dearest}.")
    if first.unusable[0]:
        lines.append(f"{plural(first.unusable[0], 'row')} would fail: {first.unusable[1]}")
    if first.price is None:
        lines.append(
            "The price of this model is not known; give it in dollars per million prompt and "
            "output tokens: --backend-option price=0.15/0.60"
        )
    elif first.price.source:
        lines.append(
            f"Price: ${first.price.prompt:g} / ${first.price.completion:g} per million prompt / "
            f"output tokens ({first.price.source})."
        )
    if first.batch_window_s is not None:
        lines.append(
            f"Answers come in batches, each of which may take up to {first.batch_window_s / 3600:g}"
            " h: the outputs to explain are one, and so is every round of a method."
        )
    elif first.minutes is None:
        lines.append("The time depends on the limits: give --rpm and --tpm.")
    return lines
