# SPDX-License-Identifier: Apache-2.0
"""``pizza evaluate``: how faithful a saved attribution is to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pizza.cli.options import (
    LIMITS,
    MEASURE,
    MODEL,
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
    Seed,
    SkipFailures,
    Timeout,
    Tpm,
    option,
)


def evaluate(
    result: Annotated[
        Path,
        typer.Argument(
            help="What pizza attribute wrote (--output or --json); - reads standard input.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None,
        option(
            MODEL,
            "By default the model that the attribution was made with.",
            *("--model", "-m"),
            metavar="BACKEND[:MODEL]",
        ),
    ] = None,
    base_url: BaseUrl = None,
    api_key_env: ApiKeyEnv = None,
    backend_option: BackendOption = None,
    seed: Seed = 0,
    measure: Annotated[
        list[str] | None,
        option(
            MEASURE,
            "lds, lds:p=0.9, deletion, insertion, comprehensiveness, sufficiency, top-k-drop, "
            "infidelity, completeness-error, shapley-correlation, tau-loo; may be repeated. By "
            "default all that fit.",
            metavar="NAME",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        option(
            MEASURE, "How a change is measured; by default as in the attribution.", metavar="NAME"
        ),
    ] = None,
    perturbation: Annotated[
        str | None,
        option(
            MEASURE,
            "What stands in for an absent unit; by default as in the attribution.",
            metavar="NAME",
        ),
    ] = None,
    output_token: Annotated[
        int | None,
        option(
            MEASURE,
            "Evaluate the scores of this output token, counted from 0, and not of the whole "
            "output.",
            metavar="N",
        ),
    ] = None,
    skip_failures: SkipFailures = False,
    budget: Annotated[
        str | None,
        option(
            LIMITS,
            "What it may take: calls (300), tokens ('20k tokens') or dollars ('$0.50'). By default "
            "256 changed prompts.",
            *("--budget", "-b"),
            metavar="AMOUNT",
        ),
    ] = None,
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
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure how faithful an attribution is to a model.

    Prompts are changed in ways that the attribution has not seen, and in the order of its scores,
    and the model is asked again. Each figure stands beside that of random orders.

    Exit codes: as for attribute.
    """
    from pizza.cli.evaluating import Order, execute

    order = Order(
        result=result,
        # Named when the attribution has been read.
        model=model or "",
        base_url=base_url,
        api_key_env=api_key_env,
        backend_options=tuple(backend_option or ()),
        seed=seed,
        measures=tuple(measure or ()),
        metric=metric,
        perturbation=perturbation,
        output_token=output_token,
        skip_failures=skip_failures,
        budget=budget,
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
        quiet=quiet,
        debug=debug,
    )
    raise typer.Exit(execute(order))
