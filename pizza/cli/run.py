# SPDX-License-Identifier: Apache-2.0
"""``pizza run``: explain every row of an input, in a directory that remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pizza.cli.options import (
    LIMITS,
    OUTPUT,
    ApiKeyEnv,
    AsJson,
    Attempts,
    BackendOption,
    BaseUrl,
    Concurrency,
    Debug,
    MaxCost,
    MaxTokens,
    MaxTotalTokens,
    Model,
    Quiet,
    Rpm,
    Seed,
    Temperature,
    Timeout,
    Tpm,
)
from pizza.cli.run_options import (
    Answers,
    Evidence,
    IdColumn,
    MaxRequests,
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


def run(
    rows: Rows,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="The run directory: results, failures, answers. Made when it is not there.",
            rich_help_panel=OUTPUT,
        ),
    ],
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Refuse to start anew: the directory must hold a run. Without it a run that is "
            "there goes on as well.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    prompt_column: PromptColumn = None,
    id_column: IdColumn = None,
    target_column: TargetColumn = None,
    split: Split = None,
    skip_bad_rows: SkipBadRows = False,
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
    concurrency: Concurrency = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Rows worked on at the same time; with ray, by each of its workers. By default "
            "16, or 500 where answers come in batches.",
            rich_help_panel=LIMITS,
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What explains the rows: local, this process; or ray, a Ray cluster, with options "
            "as in ray:address=auto,workers=8. Limits and caps hold over all its workers together.",
            rich_help_panel=LIMITS,
        ),
    ] = "local",
    attempts: Attempts = 6,
    timeout: Timeout = 120.0,
    max_requests: MaxRequests = None,
    max_total_tokens: MaxTotalTokens = None,
    max_cost: MaxCost = None,
    circuit: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Stop after so many rows in a row failed for a reason that is not theirs, such as "
            "a wrong key; 0 = never.",
            rich_help_panel=LIMITS,
        ),
    ] = 5,
    cache: Answers = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Try rows again that failed for a reason of their own; others are anyway.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    keep: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="scores, or full: whole attributions with all answers, for reanalysis.",
            rich_help_panel=OUTPUT,
        ),
    ] = "scores",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only say what it would take: pizza estimate.", rich_help_panel=OUTPUT
        ),
    ] = False,
    sample: Sample = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Explain every row of an input, and remember every answer that was paid for.

    Interrupted by anything and started again with the same command, it goes on where it was.

    Exit codes: 0 every row has a result, 4 some failed, 5 a cap was reached; else as for attribute.
    """
    from pizza.cli.run_order import RunOrder

    order = RunOrder(
        rows=rows,
        output=output,
        resume=resume,
        prompt_column=prompt_column,
        id_column=id_column,
        target_column=target_column,
        split=split,
        skip_bad_rows=skip_bad_rows,
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
        concurrency=concurrency,
        workers=workers,
        engine=engine,
        attempts=attempts,
        timeout=timeout,
        max_calls=max_requests,
        max_total_tokens=max_total_tokens,
        max_cost=max_cost,
        circuit=circuit,
        cache=cache,
        no_cache=False,
        retry_failed=retry_failed,
        keep=keep,
        dry_run=dry_run,
        sample=sample,
        as_json=as_json,
        quiet=quiet,
        debug=debug,
    )
    if dry_run:
        from pizza.cli.estimate_show import execute as rehearse

        raise typer.Exit(rehearse(order))
    from pizza.cli.run_execute import execute

    raise typer.Exit(execute(order))
