# SPDX-License-Identifier: Apache-2.0
"""``pizza estimate``: what a run would send and cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pizza.cli.options import (
    OUTPUT,
    ApiKeyEnv,
    AsJson,
    BackendOption,
    BaseUrl,
    Debug,
    MaxTokens,
    Model,
    Quiet,
    Rpm,
    Seed,
    Temperature,
    Tpm,
)
from pizza.cli.run_options import (
    Answers,
    Evidence,
    IdColumn,
    Methods,
    Metrics,
    Perturbation,
    PromptColumn,
    Repeats,
    RowBudget,
    Rows,
    Sample,
    SkipBadRows,
    Split,
    TargetColumn,
    Units,
)


def estimate(
    rows: Rows,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="A run directory: what it holds is not counted.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    prompt_column: PromptColumn = None,
    id_column: IdColumn = None,
    target_column: TargetColumn = None,
    split: Split = None,
    skip_bad_rows: SkipBadRows = False,
    sample: Sample = None,
    model: Model = "embedded",
    base_url: BaseUrl = None,
    api_key_env: ApiKeyEnv = None,
    backend_option: BackendOption = None,
    max_tokens: MaxTokens = 64,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    units: Units = "word",
    method: Methods = None,
    budget: RowBudget = None,
    repeats: Repeats = None,
    perturbation: Perturbation = "delete",
    metric: Metrics = None,
    evidence: Evidence = "auto",
    rpm: Rpm = None,
    tpm: Tpm = None,
    cache: Answers = None,
    per_prompt: Annotated[
        Path | None,
        typer.Option(
            "--per-prompt",
            metavar="FILE",
            help="Write what every prompt would take, as JSON lines.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say how many requests, tokens, dollars and minutes a run would take. Sends nothing.

    Everything is cut, changed and counted as the run would do it, and looked up in its answers.

    Exit codes: as for attribute.
    """
    from pizza.cli.estimate_show import execute
    from pizza.cli.run_order import RunOrder

    order = RunOrder(
        rows=rows,
        output=output,
        prompt_column=prompt_column,
        id_column=id_column,
        target_column=target_column,
        split=split,
        skip_bad_rows=skip_bad_rows,
        sample=sample,
        model=model,
        base_url=base_url,
        api_key_env=api_key_env,
        backend_options=tuple(backend_option or ()),
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        units=units,
        methods=tuple(method or ()),
        budget=budget,
        repeats=repeats,
        perturbation=perturbation,
        metrics=tuple(metric or ()),
        evidence=evidence,
        skip_failures=True,
        rpm=rpm,
        tpm=tpm,
        concurrency=None,
        attempts=1,
        timeout=120.0,
        max_calls=None,
        max_total_tokens=None,
        max_cost=None,
        cache=cache,
        no_cache=False,
        as_json=as_json,
        quiet=quiet,
        debug=debug,
    )
    raise typer.Exit(execute(order, per_prompt))
