# SPDX-License-Identifier: Apache-2.0
"""Makes one run from the command line: display, end, exit code."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from pizza.cli.consoles import err, orderly, write_json
from pizza.cli.failures import BUDGET_REACHED, INTERRUPTED, MODEL_FAILED, OK, report
from pizza.cli.run_display import displayed
from pizza.cli.run_order import RunOrder
from pizza.render.text import harmless, plural

if TYPE_CHECKING:
    from pizza.bulk import Summary


def execute(order: RunOrder) -> int:
    """Run; return the exit code."""
    console = err()
    variables = (order.api_key_env,) if order.api_key_env else ()
    try:
        with orderly(console):
            summary = _run(order, console)
    except (KeyboardInterrupt, asyncio.CancelledError):
        _say(
            console,
            "Interrupted; nothing is left running. Run the same command again: it goes on from "
            "here and pays for nothing twice.",
        )
        return INTERRUPTED
    except Exception as error:  # the last place where it can be turned into an exit code
        return report(error, console, debug=order.debug, variables=variables)
    if order.as_json:
        write_json(_plain(summary))
    if summary.error is not None:
        code = report(summary.error, console, debug=order.debug, variables=variables)
        _say(console, _ended(summary))
        return BUDGET_REACHED if summary.reason == "budget" else code
    if not order.quiet:
        _say(console, _ended(summary))
    return MODEL_FAILED if summary.failed else OK


def _run(order: RunOrder, console: Console) -> Summary:
    from pizza import bulk

    options = order.run_options()

    async def work() -> Summary:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is one
        # Schedulers of jobs say SIGTERM where people press Ctrl-C.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await bulk.run(order.rows, order.output or "", on_event=watch, **options)

    with displayed(console, order, options["budget"]) as watch:
        return asyncio.run(work())


def _ended(summary: Summary) -> str:
    left = summary.rows - summary.done - summary.failed
    spent = summary.spent
    cost = f", ${spent.cost:,.4g}" if spent.cost else ""
    parts = [
        f"{summary.done:,} of {plural(summary.rows, 'row')} done",
        *([f"{summary.failed:,} failed (see failures.jsonl)"] if summary.failed else []),
        *([f"{left:,} left: run the same command again"] if left else []),
    ]
    return (
        f"{', '.join(parts)}. {plural(spent.calls, 'request')} in all{cost}. "
        f"Results are in {summary.directory}; pizza export writes them to one file."
    )


def _plain(summary: Summary) -> dict[str, Any]:
    return {
        "reason": summary.reason,
        "message": summary.message,
        "rows": summary.rows,
        "done": summary.done,
        "failed": summary.failed,
        "spent": dataclasses.asdict(summary.spent),
        "seconds": summary.seconds,
        "directory": str(summary.directory),
    }


def _say(console: Console, text: str) -> None:
    console.print(Text(harmless(text)), soft_wrap=True)
