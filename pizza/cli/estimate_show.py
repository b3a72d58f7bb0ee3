# SPDX-License-Identifier: Apache-2.0
"""Runs an estimate and shows its plans side by side."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pizza.cli.consoles import err, orderly, out, show, write_json
from pizza.cli.failures import INTERRUPTED, OK, report
from pizza.cli.run_order import RunOrder
from pizza.render.text import harmless, plural

if TYPE_CHECKING:
    from pizza.bulk import Plan


def execute(order: RunOrder) -> int:
    """Estimate; return the exit code."""
    console = err()
    variables = (order.api_key_env,) if order.api_key_env else ()
    try:
        with orderly():
            from pizza import bulk

            plans = asyncio.run(bulk.estimate(order.rows, **order.estimate_options()))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # the last place where it can be turned into an exit code
        return report(error, console, debug=order.debug, variables=variables)
    if order.as_json:
        write_json({"plans": [plan_dict(plan) for plan in plans]})
    else:
        _show(out(), plans)
    return OK


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
    for name in ("method", "requests", "range", "cached", "tokens in", "tokens out"):
        table.add_column(name, justify="left" if name == "method" else "right")
    table.add_column("dollars", justify="right")
    table.add_column("minutes", justify="right")
    for plan in plans:
        most = "any" if plan.most is None else f"{plan.most:,}"
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
    if first.minutes is None:
        lines.append("The time depends on the limits: give --rpm and --tpm.")
    return lines
