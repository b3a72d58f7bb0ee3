# SPDX-License-Identifier: Apache-2.0
"""``pizza attribute``: explain one prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pizza.cli.options import (
    MEASURE,
    MODEL,
    OUTPUT,
    ApiKeyEnv,
    AsJson,
    Attempts,
    BackendOption,
    BaseUrl,
    Cache,
    Concurrency,
    Debug,
    MaxCalls,
    MaxCost,
    MaxTotalTokens,
    NoCache,
    Output,
    Quiet,
    Rpm,
    SkipFailures,
    Timeout,
    Tpm,
)
from pizza.cli.sources import Source

_PROMPT = "Prompt"


def attribute(
    prompt: Annotated[
        str | None,
        typer.Argument(help="The prompt; - reads standard input.", show_default=False),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            "-f",
            metavar="PATH",
            help="Read the prompt from a file.",
            rich_help_panel=_PROMPT,
        ),
    ] = None,
    messages: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Read a chat from a JSON file: a list of messages with role and content.",
            rich_help_panel=_PROMPT,
        ),
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGEX",
            help="Never perturb what matches; may be repeated.",
            rich_help_panel=_PROMPT,
        ),
    ] = None,
    fix_role: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE",
            help="Never perturb messages of this role; may be repeated.",
            rich_help_panel=_PROMPT,
        ),
    ] = None,
    perturb_marks: Annotated[
        bool,
        typer.Option(
            "--perturb-marks",
            help='Perturb "Q:", "A:" and chat marks too. They are held fixed otherwise.',
            rich_help_panel=_PROMPT,
        ),
    ] = False,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="BACKEND[:MODEL]",
            help="For example embedded, openai:gpt-4o-mini.",
            rich_help_panel=MODEL,
        ),
    ] = "embedded",
    base_url: BaseUrl = None,
    api_key_env: ApiKeyEnv = None,
    backend_option: BackendOption = None,
    max_tokens: Annotated[
        int, typer.Option(metavar="N", help="Longest output, tokens.", rich_help_panel=MODEL)
    ] = 64,
    temperature: Annotated[
        float, typer.Option(metavar="T", help="0 = the most likely output.", rich_help_panel=MODEL)
    ] = 0.0,
    seed: Annotated[
        int, typer.Option(metavar="N", help="For everything random.", rich_help_panel=MODEL)
    ] = 0,
    units: Annotated[
        str,
        typer.Option(
            "--units",
            "-u",
            metavar="NAME",
            help="What is perturbed as a whole: token, word, sentence, paragraph, message, "
            "regex:pattern=...",
            rich_help_panel=MEASURE,
        ),
    ] = "word",
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="leave-one-out, context-cite, shapley-sampling, sliding-window:size=3, ... By "
            "default auto with --budget, else leave-one-out.",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            "-b",
            metavar="AMOUNT",
            help="What this answer may take: 128 (calls), '20k tokens', '$0.50'. The best use is "
            "made of it, and what is not needed is not spent.",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Answers to every prompt, for models that sample; their effects are averaged and "
            "tested.",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    perturbation: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What stands in for an absent unit: delete, fixed:text=..., ...",
            rich_help_panel=MEASURE,
        ),
    ] = "delete",
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="How a change is measured; may be repeated, the first one colours the prompt. "
            "By default logprob-diff, or edit-distance where there are no log-probabilities.",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Explain this output instead of the model's own.",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    contrast: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="With --target: why that output and not this one.",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    span: Annotated[
        str | None,
        typer.Option(
            metavar="START:END",
            help="Explain only these characters of the output, counted from 0.",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    evidence: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="score: the output is scored with each changed prompt; complete: the model "
            "answers each; auto: score where the model can.",
            rich_help_panel=MEASURE,
        ),
    ] = "auto",
    skip_failures: SkipFailures = False,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrency: Concurrency = None,
    attempts: Attempts = 6,
    timeout: Timeout = 120.0,
    max_calls: MaxCalls = None,
    max_total_tokens: MaxTotalTokens = None,
    max_cost: MaxCost = None,
    cache: Cache = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
    output: Output = None,
    top: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Rows of the table of units.", rich_help_panel=OUTPUT
        ),
    ] = 8,
    show_all: Annotated[
        bool,
        typer.Option(
            "--all", help="Show long prompts whole and every unit.", rich_help_panel=OUTPUT
        ),
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show which parts of a prompt made a model say what it said.

    The prompt is changed piece by piece and the model is asked again; a piece scores high when the
    output becomes less likely, or changes, without it.

    Exit codes: 0 ok, 2 wrong call, 3 no valid key, 4 the model failed, 5 budget reached, 6 plugin
    at fault, 130 interrupted.
    """
    from pizza.cli.order import Order
    from pizza.cli.running import execute

    order = Order(
        source=Source(
            argument=prompt,
            file=file,
            messages=messages,
            fix=tuple(fix or ()),
            fix_roles=tuple(fix_role or ()),
            perturb_marks=perturb_marks,
        ),
        model=model,
        base_url=base_url,
        api_key_env=api_key_env,
        backend_options=tuple(backend_option or ()),
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        units=units,
        method=method,
        budget=budget,
        repeats=repeats,
        perturbation=perturbation,
        metrics=tuple(metric or ()),
        target=target,
        contrast=contrast,
        span=span,
        evidence=evidence,
        skip_failures=skip_failures,
        rpm=rpm,
        tpm=tpm,
        concurrency=concurrency,
        attempts=attempts,
        timeout=timeout,
        max_calls=max_calls,
        max_total_tokens=max_total_tokens,
        max_cost=max_cost,
        cache=cache,
        no_cache=no_cache,
        as_json=as_json,
        output=output,
        top=top,
        show_all=show_all,
        quiet=quiet,
        debug=debug,
    )
    raise typer.Exit(execute(order))
