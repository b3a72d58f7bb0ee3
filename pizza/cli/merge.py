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
    from pizza.cli.gathering import execute

    def gather() -> int:
        from pizza import bulk

        return bulk.merge(runs, output, duplicates=duplicates, responses=not no_responses)

    raise typer.Exit(execute(gather, output, debug=debug))
