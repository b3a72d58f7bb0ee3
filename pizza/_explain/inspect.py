# SPDX-License-Identifier: Apache-2.0
"""One attribution by a method that looks inside the model: nothing is perturbed."""

from __future__ import annotations

import numpy as np

from pizza._explain.checks import calls_left
from pizza._explain.job import Context
from pizza._explain.provenance import provenance
from pizza._explain.reference import ask, check_written, report_reference
from pizza.abc import Findings, Inspection
from pizza.attribution import Attribution, Evaluations, MetricScores
from pizza.completion import Completion, Request
from pizza.errors import BudgetTooSmallError, PluginContractError
from pizza.prompt import Unit


async def inspect(context: Context, units: tuple[Unit, ...], started: float) -> Attribution:
    """Ask for the output if it is not given, then let the method look.

    Cost: one call for the model's own completion; none for a given target.
    """
    job = context.job
    output = await _written(context) if job.target.kind == "completion" else None
    findings = await context.backend.inspect(
        Inspection(prompt=job.prompt, units=units, target=job.target, output=output, seed=job.seed),
        job.method.value,
    )
    _check(context, findings, len(units))
    n_rows = 1 + len(findings.output.tokens)
    account = context.account
    return Attribution(
        prompt=job.prompt,
        units=units,
        target=job.target,
        output=findings.output,
        results=(
            MetricScores(
                metric=findings.function,
                scores=findings.scores.values + 0.0,
                standard_errors=findings.scores.standard_errors,
            ),
        ),
        evaluations=Evaluations(
            coalitions=np.ones((0, len(units)), dtype=bool),
            effects={findings.function: np.zeros((0, n_rows))},
            answers=(),
        ),
        calls=account.calls,
        cache_hits=account.cache_hits,
        usage=account.usage,
        cost=account.cost,
        provenance={
            **provenance(context, findings.scores.details, started),
            "signed": findings.signed,
        },
        warnings=(*context.warnings, *findings.warnings),
    )


async def _written(context: Context) -> Completion:
    allowed = calls_left(context)
    if allowed is not None and allowed < 1:
        raise BudgetTooSmallError(
            "the model's own completion costs one call and the budget has 0 left. Raise "
            "max_calls, or give a target text.",
            needed=1,
            allowed=0,
        )
    report_reference(context)
    request = Request(prompt=context.job.prompt, generation=context.job.generation)
    written = await ask(context, request)
    check_written(written)
    return written


def _check(context: Context, findings: Findings, n_units: int) -> None:
    name = context.job.method.name
    if not isinstance(findings, Findings):
        raise PluginContractError(
            f"the method {name!r} returned {type(findings).__name__}, not pizza.abc.Findings."
        )
    expected = (1 + len(findings.output.tokens), n_units)
    scores = findings.scores
    arrays = {"scores": scores.values}
    if scores.standard_errors is not None:
        arrays["standard errors"] = scores.standard_errors
    for what, array in arrays.items():
        if np.shape(array) != expected:
            raise PluginContractError(
                f"the method {name!r} returned {what} of shape {np.shape(array)}; "
                f"expected (1 + output tokens, units) = {expected}."
            )
