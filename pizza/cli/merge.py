# SPDX-License-Identifier: Apache-2.0
"""``pizza merge``: several run directories become one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pizza.cli.options import OUTPUT, Debug


def merge(
    runs: Annotated[list[Path], typer.Argument(help="Run directories.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="A new directory.", rich_help_panel=OUTPUT
        ),
    ],
    duplicates: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="refuse ids that several runs have, or take the first.",
            rich_help_panel=OUTPUT,
        ),
    ] = "refuse",
    no_responses: Annotated[
        bool,
        typer.Option(
            "--no-responses", help="Leave the stored answers out.", rich_help_panel=OUTPUT
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Put runs over parts of an input together. The runs stay as they are.

    Exit codes: as for attribute.
    """
    from rich.text import Text

    from pizza.cli.consoles import err, orderly
    from pizza.cli.failures import OK, report
    from pizza.render.text import harmless, plural

    console = err()
    try:
        with orderly():
            from pizza import bulk

            rows = bulk.merge(runs, output, duplicates=duplicates, responses=not no_responses)
    except Exception as error:  # the last place where it can be turned into an exit code
        raise typer.Exit(report(error, console, debug=debug)) from error
    console.print(Text(f"{plural(rows, 'row')} in {harmless(str(output))}."), soft_wrap=True)
    raise typer.Exit(OK)
