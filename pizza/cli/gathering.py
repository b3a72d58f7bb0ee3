# SPDX-License-Identifier: Apache-2.0
"""Commands that put rows of runs somewhere: made, told of, turned into an exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.text import Text

from pizza.cli.consoles import err, orderly
from pizza.cli.failures import OK, report
from pizza.render.text import harmless, plural


def execute(gather: Callable[[], int], output: Path, *, debug: bool) -> int:
    """Gather, and say how many rows there are; return the exit code.

    Args:
        gather: Does it, and returns the number of rows.
        output: Where they are.
        debug: Whether a traceback is shown.
    """
    console = err()
    try:
        with orderly():
            rows = gather()
    except Exception as error:  # the last place where it can be turned into an exit code
        return report(error, console, debug=debug)
    console.print(Text(f"{plural(rows, 'row')} in {harmless(str(output))}."), soft_wrap=True)
    return OK
