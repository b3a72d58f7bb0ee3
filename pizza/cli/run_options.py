# SPDX-License-Identifier: Apache-2.0
"""Options that ``pizza run`` and ``pizza estimate`` share, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pizza.cli.options import LIMITS, MEASURE

INPUT = "Input"

Rows = Annotated[
    str,
    typer.Argument(
        help="A .jsonl, .csv, .tsv or .parquet file, a directory of .txt files, or hf:NAME.",
        show_default=False,
    ),
]
PromptColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The column with the prompt: a text or chat messages. By default prompt, messages, "
        "text, question or input.",
        rich_help_panel=INPUT,
    ),
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The column that names the row; by default id, else its number.",
        rich_help_panel=INPUT,
    ),
]
TargetColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The column with the output to explain; by default the model's own is explained.",
        rich_help_panel=INPUT,
    ),
]
Split = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Split of a dataset.", rich_help_panel=INPUT),
]
SkipBadRows = Annotated[
    bool,
    typer.Option(
        "--skip-bad-rows",
        help="Note records that cannot be used as failures, instead of refusing the input.",
        rich_help_panel=INPUT,
    ),
]
Units = Annotated[
    str,
    typer.Option(
        "--units",
        "-u",
        metavar="NAME",
        help="What is perturbed as a whole: token, word, sentence, paragraph, ...",
        rich_help_panel=MEASURE,
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="leave-one-out, context-cite, ... By default auto with --budget, else leave-one-out. "
        "An estimate compares several.",
        rich_help_panel=MEASURE,
    ),
]
RowBudget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        "-b",
        metavar="AMOUNT",
        help="What every row may take: 128 (calls), '20k tokens', '$0.50'.",
        rich_help_panel=MEASURE,
    ),
]
Repeats = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Answers to every prompt, for models that sample.",
        rich_help_panel=MEASURE,
    ),
]
Perturbation = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="What stands in for an absent unit.", rich_help_panel=MEASURE
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="How a change is measured; may be repeated.",
        rich_help_panel=MEASURE,
    ),
]
Evidence = Annotated[
    str, typer.Option(metavar="KIND", help="score, complete or auto.", rich_help_panel=MEASURE)
]
MaxRequests = Annotated[
    int | None,
    typer.Option(
        "--max-requests",
        "--max-calls",
        metavar="N",
        help="Most requests that all runs in the directory may send together.",
        rich_help_panel=LIMITS,
    ),
]
Answers = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="PATH",
        help="Another file of answers than the run directory's own.",
        rich_help_panel=LIMITS,
    ),
]
Sample = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Rehearse so many rows, evenly spread, and scale up; by default all.",
        rich_help_panel=INPUT,
    ),
]
