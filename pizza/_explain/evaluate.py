# SPDX-License-Identifier: Apache-2.0
"""One evaluation from first to last: the attribution's question again, then measures.

What is rebuilt is the question: prompt, units, output, perturbation, metric. The model may be
another one than the attribution was made with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pizza import coalition
from pizza._engine.asking import Account
from pizza._engine.driving import drive
from pizza._explain.checks import calls_left, negotiate, references_needed, requests_per_coalition
from pizza._explain.evaluating import Evaluating, case_of, job_of, resolved, reusable
from pizza._explain.job import Context
from pizza._explain.price import allowance_for
from pizza._explain.provenance import provenance
from pizza._explain.recorded import Recorded
from pizza._explain.run import Prepared, prepared
from pizza._explain.scales import with_scale
from pizza._parts import Part
from pizza.attribution import Attribution
from pizza.capability import Capability
from pizza.errors import ConfigError
from pizza.evaluation.case import Effort
from pizza.evaluation.measure import Measure
from pizza.evaluation.plan import BUDGET, LEVELS, Examination, suited
from pizza.evaluation.result import Evaluation, Faithfulness
from pizza.limits import Budget

__all__ = ["evaluate", "resolved"]

_REFERENCES = 2
"""Calls for the whole prompt: its completion and its score."""


async def evaluate(wanted: Evaluating, *, started: float, **owned: Any) -> Evaluation:
    """Measure an attribution with what the session owns.

    Args:
        wanted: What to do.
        started: Wall-clock time, for the provenance.
        **owned: As for `explain`.
    """
    in_thread = owned["in_thread"]
    recorded = Recorded(wanted.attribution)
    case = case_of(wanted)
    free = case.used if reusable(wanted, recorded, owned["backend"]) else frozenset()
    measures = wanted.measures
    left_out: list[str] = []
    if wanted.usual:
        room = _room(wanted.budget, owned)
        measures, left_out = await in_thread(suited, measures, case, room, free)
    examination = Examination(measures, case, _coalitions(wanted.budget))
    # Drawing coalitions of thousands of units takes a while: not on the loop.
    least = await in_thread(examination.cost, LEVELS[0], free)
    account = Account()
    known = await owned["confirm"](frozenset({Capability.SCORE}), account)
    job = job_of(wanted, recorded, owned, Capability.SCORE in known)
    job = replace(job, method=Part(kind="method", name="evaluate", value=_Least(least)))
    context = Context(job=job, account=account, **owned)
    context.allowance = allowance_for(context)
    context.warnings += left_out
    with context.meter.measure(context.backend) as context.reading:
        negotiate(context)
        await in_thread(examination.effort, free, _affordable(context))
        ready = await prepared(context, wanted.attribution.units)
        return await _measured(wanted, recorded, context, ready, measures, started)


@dataclass(frozen=True, slots=True)
class _Least:
    """What the checks of a budget want to know of a method."""

    coalitions: int

    def calls(self, n_units: int) -> tuple[int, int]:
        return self.coalitions, self.coalitions


def _coalitions(budget: Budget | None) -> int:
    """Coalitions of a budget; where it counts something else, no more than usual."""
    return BUDGET if budget is None or budget.max_calls is None else budget.max_calls


def _room(budget: Budget | None, owned: Mapping[str, Any]) -> int:
    """Coalitions that there are calls for; 0 where the budget counts something else."""
    if budget is not None and budget.max_calls is None:
        return 0
    rooms = [BUDGET if budget is None else _coalitions(budget) - _REFERENCES]
    if (cap := owned["budget"].max_calls) is not None:
        rooms.append(cap - owned["scheduler"].statistics.calls - _REFERENCES)
    return min(rooms)


def _affordable(context: Context) -> int | None:
    """Coalitions that caps on calls leave room for, the reference taken off."""
    left = calls_left(context)
    if left is None:
        return None
    return max(0, left - references_needed(context)) // requests_per_coalition(context)


async def _measured(
    wanted: Evaluating,
    recorded: Recorded,
    context: Context,
    ready: Prepared,
    measures: Sequence[Measure],
    started: float,
) -> Evaluation:
    attribution, token = wanted.attribution, wanted.output_token
    if token is not None and ready.output.tokens != attribution.output.tokens:
        raise ConfigError(
            f"{context.backend.name} divides the output into other tokens than the attribution "
            f"has, so the scores of token {token} cannot be evaluated with it. Leave the output "
            "token out."
        )
    metric, column = context.metrics[0], 0 if token is None else 1 + token
    known: dict[bytes, float] = {}
    if reusable(replace(wanted, metric=metric), recorded, context.backend) and recorded.alike(
        ready.output, scored=context.scored
    ):
        known = _values(attribution, metric.label, column)
    case = with_scale(case_of(wanted), context, ready, column)
    budget = wanted.budget
    bounded = budget is not None and budget.max_calls is None
    most = ready.game.max_calls if bounded and ready.game.max_calls else _coalitions(budget)
    examination = Examination(measures, case, most)
    effort = await context.in_thread(examination.effort, known.keys(), ready.game.max_calls)
    results: tuple[Faithfulness, ...] = await drive(
        examination.plan(effort, column=column, known=known),
        ready.measurement,
        len(ready.units),
        "evaluate",
    )
    account = context.account
    return Evaluation(
        results=results,
        metric=metric.label,
        n_units=len(ready.units),
        output_token=token,
        calls=account.calls,
        cache_hits=account.cache_hits,
        usage=account.usage,
        cost=account.cost,
        provenance=_provenance(wanted, context, results, effort, started),
        warnings=(
            *context.warnings,
            *ready.measurement.warnings,
            *recorded.doubts(context, ready.output, case.scores),
        ),
    )


def _values(attribution: Attribution, metric: str, column: int) -> dict[bytes, float]:
    """What is known already, by coalition; undefined values are asked for again."""
    effects = attribution.evaluations.effects[metric][:, column]
    keys = (coalition.key(row) for row in attribution.evaluations.coalitions)
    return {
        key: -float(effect)
        for key, effect in zip(keys, effects, strict=True)
        if not np.isnan(effect)
    }


def _provenance(
    wanted: Evaluating,
    context: Context,
    results: Sequence[Faithfulness],
    effort: Effort,
    started: float,
) -> dict[str, Any]:
    found = provenance(context, {}, started)
    made = wanted.attribution.provenance
    kept = ("pizza_version", "created_at", "backend", "backend_identity", "method", "evidence")
    for name in ("method", "segmenter"):
        found.pop(name, None)
    return {
        **found,
        "seed": wanted.seed,
        "output": wanted.attribution.output.text,
        "measures": [result.measure for result in results],
        "effort": {
            "points": effort.points,
            "random_orders": effort.orders,
            "held_out": effort.held_out,
        },
        "attribution": {name: made[name] for name in kept if name in made},
    }
