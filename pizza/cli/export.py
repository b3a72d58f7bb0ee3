# SPDX-License-Identifier: Apache-2.0
"""``pizza export``: the results of a run in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pizza.cli.options import OUTPUT, Debug


def export(
    run: Annotated[Path, typer.Argument(help="A run directory.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="The file: .jsonl, .csv or .parquet.",
            rich_help_panel=OUTPUT,
        ),
    ],
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORM",
            help="jsonl, csv or parquet; by default what the file's name ends in.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    long: Annotated[
        bool,
        typer.Option(
            "--long",
            help="One row per metric, output token and unit, instead of one per prompt.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Write the results of a run to one file. The run may still be going on.

    Exit codes: as for attribute.
    """
    from pizza.cli.gathering import execute

    def gather() -> int:
        from pizza import bulk

        return bulk.export(run, output, form=form, long=long)

    raise typer.Exit(execute(gather, output, debug=debug))
