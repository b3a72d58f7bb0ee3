# SPDX-License-Identifier: Apache-2.0
"""What one evaluation was asked for, and the question that it amounts to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pizza import coalition
from pizza._explain.job import Job
from pizza._explain.recorded import Recorded, recorded_metric, recorded_perturbation
from pizza._parts import Part, resolve, resolve_units
from pizza._plugins import Registry
from pizza.attribution import Attribution
from pizza.errors import ConfigError
from pizza.evaluation.case import Case
from pizza.evaluation.catalog import USUAL, named
from pizza.evaluation.measure import Measure
from pizza.limits import Budget
from pizza.progress import Progress


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


def case_of(wanted: Evaluating) -> Case:
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


def reusable(wanted: Evaluating, recorded: Recorded, backend: Any) -> bool:
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


def job_of(wanted: Evaluating, recorded: Recorded, owned: Mapping[str, Any], scores: bool) -> Job:
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
