# SPDX-License-Identifier: Apache-2.0
"""``pizza attribute``: explain one prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pizza.cli.options import (
    MEASURE,
    ApiKeyEnv,
    AsJson,
    Attempts,
    BackendOption,
    BaseUrl,
    Cache,
    Concurrency,
    Debug,
    Evidence,
    MaxCalls,
    MaxCost,
    MaxTokens,
    MaxTotalTokens,
    Model,
    NoCache,
    Output,
    Perturbation,
    Quiet,
    Repeats,
    Rpm,
    Seed,
    ShowAll,
    SkipFailures,
    Temperature,
    Timeout,
    Top,
    Tpm,
    Units,
    option,
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
        option(_PROMPT, "Read the prompt from a file.", "--file", "-f", metavar="PATH"),
    ] = None,
    messages: Annotated[
        Path | None,
        option(
            _PROMPT,
            "Read a chat from a JSON file: a list of messages with role and content.",
            metavar="PATH",
        ),
    ] = None,
    fix: Annotated[
        list[str] | None,
        option(_PROMPT, "Never perturb what matches; may be repeated.", metavar="REGEX"),
    ] = None,
    fix_role: Annotated[
        list[str] | None,
        option(_PROMPT, "Never perturb messages of this role; may be repeated.", metavar="ROLE"),
    ] = None,
    perturb_marks: Annotated[
        bool,
        option(
            _PROMPT,
            'Perturb "Q:", "A:" and chat marks too. They are held fixed otherwise.',
            "--perturb-marks",
        ),
    ] = False,
    model: Model = "embedded",
    base_url: BaseUrl = None,
    api_key_env: ApiKeyEnv = None,
    backend_option: BackendOption = None,
    max_tokens: MaxTokens = 64,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    units: Units = "word",
    method: Annotated[
        str | None,
        option(
            MEASURE,
            "leave-one-out, context-cite, shapley-sampling, sliding-window:size=3, ... By default "
            "auto with --budget, else leave-one-out.",
            metavar="NAME",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        option(
            MEASURE,
            "What this answer may take: 128 (calls), '20k tokens', '$0.50'. The best use is made "
            "of it, and what is not needed is not spent.",
            *("--budget", "-b"),
            metavar="AMOUNT",
        ),
    ] = None,
    repeats: Repeats = None,
    perturbation: Perturbation = "delete",
    metric: Annotated[
        list[str] | None,
        option(
            MEASURE,
            "How a change is measured; may be repeated, the first one colours the prompt. By "
            "default logprob-diff, or edit-distance where there are no log-probabilities.",
            metavar="NAME",
        ),
    ] = None,
    target: Annotated[
        str | None,
        option(MEASURE, "Explain this output instead of the model's own.", metavar="TEXT"),
    ] = None,
    contrast: Annotated[
        str | None,
        option(MEASURE, "With --target: why that output and not this one.", metavar="TEXT"),
    ] = None,
    span: Annotated[
        str | None,
        option(
            MEASURE,
            "Explain only these characters of the output, counted from 0.",
            metavar="START:END",
        ),
    ] = None,
    evidence: Evidence = "auto",
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
    top: Top = 8,
    show_all: ShowAll = False,
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
