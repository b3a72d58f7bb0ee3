# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODEL = "Model"
MEASURE = "What to measure"
LIMITS = "Limits, budget and cache"
OUTPUT = "Output"

BaseUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="Where the server is.", rich_help_panel=MODEL)
]
ApiKeyEnv = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The environment variable that holds the key. Never the key itself.",
        rich_help_panel=MODEL,
    ),
]
BackendOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="A further option of the backend, for example api=responses; may be repeated.",
        rich_help_panel=MODEL,
    ),
]
Rpm = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help="Requests per minute; by default what the server announces.",
        rich_help_panel=LIMITS,
    ),
]
Tpm = Annotated[
    float | None, typer.Option(metavar="N", help="Tokens per minute.", rich_help_panel=LIMITS)
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Requests at the same time; by default 50, or what a model in this process "
        "answers together.",
        rich_help_panel=LIMITS,
    ),
]
Attempts = Annotated[
    int,
    typer.Option(
        metavar="N", help="Attempts per request, the first included.", rich_help_panel=LIMITS
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", help="Seconds that one attempt may take.", rich_help_panel=LIMITS
    ),
]
MaxCalls = Annotated[
    int | None,
    typer.Option(metavar="N", help="Most requests to send.", rich_help_panel=LIMITS),
]
MaxTotalTokens = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Most prompt and output tokens to pay for.", rich_help_panel=LIMITS
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(metavar="USD", help="Most US dollars to spend.", rich_help_panel=LIMITS),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        envvar="PIZZA_CACHE",
        help="The file of answers that were paid for; by default in the user's cache folder.",
        rich_help_panel=LIMITS,
    ),
]
NoCache = Annotated[
    bool,
    typer.Option("--no-cache", help="Keep no answers on disk.", rich_help_panel=LIMITS),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="One JSON document on standard output, nothing else.",
        rich_help_panel=OUTPUT,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="Also write the result to a JSON file.",
        rich_help_panel=OUTPUT,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress and no suggestions.", rich_help_panel=OUTPUT),
]
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=OUTPUT),
]
SkipFailures = Annotated[
    bool,
    typer.Option(
        "--skip-failures",
        help="Give no score to a change that the model refuses to answer, instead of failing.",
        rich_help_panel=MEASURE,
    ),
]
