# SPDX-License-Identifier: Apache-2.0
"""One evaluation from first to last: the attribution's question again, then measures.

What is rebuilt is the question: prompt, units, output, perturbation, metric. The model may be
another one than the attribution was made with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pizza import coalition
from pizza._engine.measure import Account, Progress, drive
from pizza._explain.checks import calls_left, negotiate, references_needed, requests_per_coalition
from pizza._explain.job import Context, Job
from pizza._explain.price import allowance_for
from pizza._explain.provenance import provenance
from pizza._explain.recorded import Recorded, recorded_metric, recorded_perturbation
from pizza._explain.run import Prepared, prepared
from pizza._parts import Part, resolve, resolve_units
from pizza._plugins import Registry
from pizza.attribution import Attribution
from pizza.capability import Capability
from pizza.errors import ConfigError
from pizza.evaluation.case import Case, Effort
from pizza.evaluation.catalog import USUAL, named
from pizza.evaluation.measure import Measure
from pizza.evaluation.plan import BUDGET, LEVELS, Examination, suited
from pizza.evaluation.result import Evaluation, Faithfulness
from pizza.limits import Budget


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluating:
    """What `Session.evaluate` was asked for, with all names resolved.

    Attributes:
        attribution: What is evaluated.
        measures: What to measure.
        usual: Whether nobody named them: those that cannot be taken are left out.
        metric: What to measure of a coalition, or ``None`` where the model decides.
        perturbation: What stands in for absent units.
        budget: What may be spent, or ``None`` for `BUDGET` coalitions.
        output_token: Whose scores are evaluated; ``None`` = the whole output.
        seed: Of the coalitions that are drawn.
        skip_failures: Whether coalitions that the model refuses are left out.
        on_progress: Called after every answer.
    """

    attribution: Attribution
    measures: tuple[Measure, ...]
    usual: bool
    metric: Part | None
    perturbation: Part
    budget: Budget | None
    output_token: int | None
    seed: int
    skip_failures: bool
    on_progress: Callable[[Progress], None] | None


def resolved(
    registry: Registry,
    attribution: Attribution,
    *,
    measures: Any,
    metric: Any,
    perturbation: Any,
    **rest: Any,
) -> Evaluating:
    """What was asked for, with names resolved and what was left out taken from the attribution.

    Args:
        registry: Of the session.
        attribution: What is evaluated.
        measures: Their names, or ``None`` for all that can be taken.
        metric: Its name, or ``None`` for the attribution's.
        perturbation: Its name, or ``None`` for the attribution's.
        **rest: The other fields.

    Raises:
        ConfigError: A name or an option does not fit, or it is no attribution.
    """
    if not isinstance(attribution, Attribution):
        raise ConfigError(
            f"only an attribution can be evaluated, not {type(attribution).__name__}: use what "
            "Session.attribute returned, or pizza.Attribution.load(path)."
        )
    given = None if metric is None else resolve(registry, "metric", metric)
    return Evaluating(
        attribution=attribution,
        measures=named(USUAL if measures is None else measures),
        usual=measures is None,
        metric=given or recorded_metric(registry, attribution),
        perturbation=recorded_perturbation(registry, attribution)
        if perturbation is None
        else resolve(registry, "perturbation", perturbation),
        **rest,
    )


async def evaluate(wanted: Evaluating, *, started: float, **owned: Any) -> Evaluation:
    """Measure an attribution with what the session owns.

    Args:
        wanted: What to do.
        started: Wall-clock time, for the provenance.
        **owned: As for `explain`.
    """
    recorded = Recorded(wanted.attribution)
    case = _case(wanted)
    free = case.used if _reusable(wanted, recorded, owned["backend"]) else frozenset()
    measures, left_out = _chosen(wanted, case, free)
    examination = Examination(measures, case, _coalitions(wanted.budget))
    account = Account()
    known = await owned["confirm"](frozenset({Capability.SCORE}), account)
    job = _job(wanted, recorded, owned, Capability.SCORE in known)
    least = examination.cost(LEVELS[0], free)
    job = replace(job, method=Part(kind="method", name="evaluate", value=_Least(least)))
    context = Context(job=job, account=account, **owned)
    context.allowance = allowance_for(context)
    context.warnings += left_out
    with context.meter.measure(context.backend) as context.reading:
        negotiate(context)
        examination.effort(free, _affordable(context))
        ready = await prepared(context, wanted.attribution.units)
        return await _measured(wanted, recorded, context, ready, measures, started)


@dataclass(frozen=True, slots=True)
class _Least:
    """What the checks of a budget want to know of a method."""

    coalitions: int

    def calls(self, n_units: int) -> tuple[int, int]:
        return self.coalitions, self.coalitions


def _case(wanted: Evaluating) -> Case:
    """What measures may know before anything was asked.

    Raises:
        ConfigError: There is no such output token.
    """
    attribution, token = wanted.attribution, wanted.output_token
    if wanted.metric is not None and wanted.metric.label in attribution.metrics:
        attribution = attribution.for_metric(wanted.metric.label)
    n_tokens = len(attribution.output.tokens)
    if token is not None and (isinstance(token, bool) or not 0 <= token < n_tokens):
        there = f"the output has {n_tokens}, numbered from 0" if n_tokens else "it has none"
        raise ConfigError(f"there is no output token {token!r}: {there}.")
    return Case(
        scores=attribution.scores[0 if token is None else 1 + token],
        used=frozenset(coalition.key(row) for row in attribution.evaluations.coalitions),
        seed=wanted.seed,
    )


def _reusable(wanted: Evaluating, recorded: Recorded, backend: Any) -> bool:
    """Whether the attribution's own values are what the model would be asked for again."""
    attribution, metric = wanted.attribution, wanted.metric
    noise = attribution.noise
    return (
        backend.identity == recorded.identity
        and recorded.perturbed_by(wanted.perturbation)
        and metric is not None
        and metric.label in attribution.evaluations.effects
        and (noise is None or not noise.varies)
    )


def _chosen(
    wanted: Evaluating, case: Case, free: frozenset[bytes]
) -> tuple[Sequence[Measure], list[str]]:
    if not wanted.usual:
        return wanted.measures, []
    return suited(wanted.measures, case, _coalitions(wanted.budget), free)


def _coalitions(budget: Budget | None) -> int:
    """Coalitions of a budget; where it counts something else, no more than usual."""
    return BUDGET if budget is None or budget.max_calls is None else budget.max_calls


def _affordable(context: Context) -> int | None:
    """Coalitions that caps on calls leave room for, the reference taken off."""
    left = calls_left(context)
    if left is None:
        return None
    return max(0, left - references_needed(context)) // requests_per_coalition(context)


def _job(wanted: Evaluating, recorded: Recorded, owned: Mapping[str, Any], scores: bool) -> Job:
    attribution = wanted.attribution
    target, evidence = recorded.question(
        tokens=wanted.metric is None or wanted.metric.evidence == "tokens",
        scores=scores,
        same=owned["backend"].identity == recorded.identity,
    )
    units = resolve_units(owned["registry"], attribution.units)
    return Job(
        prompt=attribution.prompt,
        units=units,
        method=units,
        perturbation=wanted.perturbation,
        metrics=None if wanted.metric is None else (wanted.metric,),
        target=target,
        generation=recorded.generation,
        evidence=evidence,
        # Perturbations that draw (random-token) must draw what they drew then.
        seed=recorded.seed,
        skip_failures=wanted.skip_failures,
        budget=wanted.budget,
        repeats=recorded.repeats,
        on_progress=wanted.on_progress,
    )


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
    if _reusable(replace(wanted, metric=metric), recorded, context.backend) and recorded.alike(
        ready.output, scored=context.scored
    ):
        known = _values(attribution, metric.label, column)
    case = _with_scale(_case(wanted), context, ready, column)
    budget = wanted.budget
    bounded = budget is not None and budget.max_calls is None
    most = ready.game.max_calls if bounded and ready.game.max_calls else _coalitions(budget)
    examination = Examination(measures, case, most)
    effort = examination.effort(known.keys(), ready.game.max_calls)
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


_SCALES = {
    "logprob-diff": "nats",
    "prob-diff": "probability",
    "kl-divergence": "nats",
    "js-divergence": "nats",
}


def _with_scale(case: Case, context: Context, ready: Prepared, column: int) -> Case:
    """The case with what is known of the values' scale."""
    metric, target = context.metrics[0], context.job.target
    scale = _SCALES.get(metric.name, metric.label)
    plain = metric.options.get("alignment", "aligned") == "aligned"
    joint = metric.options.get("whole", "joint") == "joint"
    logprobs = ready.output.logprobs
    if metric.name != "logprob-diff" or not plain or not joint or logprobs is None:
        return replace(case, scale=scale)
    start, stop = (
        ready.output.token_window(target.span) if target.span else (0, len(ready.output.tokens))
    )
    if column:
        start, stop = column - 1, column
    contrast = target.kind == "contrast"
    return replace(
        case,
        scale=scale,
        n_tokens=1 if contrast else stop - start,
        log_probability=None if contrast else float(logprobs[start:stop].sum()),
    )


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
