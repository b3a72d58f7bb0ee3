# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

MODEL = "Model"
MEASURE = "What to measure"
LIMITS = "Limits, budget and cache"
OUTPUT = "Output"


def option(panel: str, text: str, *names: str, metavar: str | None = None, **more: Any) -> Any:
    """A `typer.Option`; for options whose words differ from command to command, too.

    Args:
        panel: The part of the help that it stands in.
        text: What it does.
        names: With dashes; by default that of the parameter. A flag needs one: else typer adds
            ``--no-...``.
        metavar: What stands for the value in the help.
        more: Of `typer.Option`.
    """
    return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=panel, **more)


Model = Annotated[
    str,
    option(
        MODEL,
        "For example embedded, openai:gpt-4o-mini.",
        *("--model", "-m"),
        metavar="BACKEND[:MODEL]",
    ),
]
BaseUrl = Annotated[str | None, option(MODEL, "Where the server is.", metavar="URL")]
ApiKeyEnv = Annotated[
    str | None,
    option(
        MODEL,
        "The environment variable that holds the key. Never the key itself.",
        metavar="NAME",
    ),
]
BackendOption = Annotated[
    list[str] | None,
    option(
        MODEL,
        "A further option of the backend, for example api=responses; may be repeated.",
        metavar="NAME=VALUE",
    ),
]
MaxTokens = Annotated[int, option(MODEL, "Longest output, tokens.", metavar="N")]
Temperature = Annotated[float, option(MODEL, "0 = the most likely output.", metavar="T")]
Seed = Annotated[int, option(MODEL, "For everything random.", metavar="N")]

Units = Annotated[
    str,
    option(
        MEASURE,
        "What is perturbed as a whole: token, word, sentence, paragraph, message, "
        "regex:pattern=...",
        *("--units", "-u"),
        metavar="NAME",
    ),
]
Repeats = Annotated[
    int | None,
    option(
        MEASURE,
        "Answers to every prompt, for models that sample; their effects are averaged and tested.",
        metavar="N",
        min=1,
    ),
]
Perturbation = Annotated[
    str,
    option(
        MEASURE,
        "What stands in for an absent unit: delete, fixed:text=..., ...",
        metavar="NAME",
    ),
]
Evidence = Annotated[
    str,
    option(
        MEASURE,
        "score: the output is scored with each changed prompt; complete: the model answers each; "
        "auto: score where the model can.",
        metavar="KIND",
    ),
]
SkipFailures = Annotated[
    bool,
    option(
        MEASURE,
        "Give no score to a change that the model refuses to answer, instead of failing.",
        "--skip-failures",
    ),
]

Rpm = Annotated[
    float | None,
    option(LIMITS, "Requests per minute; by default what the server announces.", metavar="N"),
]
Tpm = Annotated[float | None, option(LIMITS, "Tokens per minute.", metavar="N")]
Concurrency = Annotated[
    int | None,
    option(
        LIMITS,
        "Requests at the same time; by default 50, or what a model in this process answers "
        "together.",
        metavar="N",
    ),
]
Attempts = Annotated[int, option(LIMITS, "Attempts per request, the first included.", metavar="N")]
Timeout = Annotated[float, option(LIMITS, "Seconds that one attempt may take.", metavar="SECONDS")]
MaxCalls = Annotated[int | None, option(LIMITS, "Most requests to send.", metavar="N")]
MaxTotalTokens = Annotated[
    int | None, option(LIMITS, "Most prompt and output tokens to pay for.", metavar="N")
]
MaxCost = Annotated[float | None, option(LIMITS, "Most US dollars to spend.", metavar="USD")]
Cache = Annotated[
    Path | None,
    option(
        LIMITS,
        "The file of answers that were paid for; by default in the user's cache folder.",
        metavar="PATH",
        envvar="PIZZA_CACHE",
    ),
]
NoCache = Annotated[bool, option(LIMITS, "Keep no answers on disk.", "--no-cache")]

AsJson = Annotated[
    bool, option(OUTPUT, "One JSON document on standard output, nothing else.", "--json")
]
Output = Annotated[
    Path | None,
    option(OUTPUT, "Also write the result to a JSON file.", "--output", "-o", metavar="PATH"),
]
Top = Annotated[int, option(OUTPUT, "Rows of the table of units.", metavar="N", min=1)]
ShowAll = Annotated[bool, option(OUTPUT, "Show long prompts whole and every unit.", "--all")]
Quiet = Annotated[bool, option(OUTPUT, "No progress and no suggestions.", "--quiet", "-q")]
Debug = Annotated[bool, option(OUTPUT, "Show the traceback of an error.", "--debug")]
