# SPDX-License-Identifier: Apache-2.0
"""One attribution from first to last: check, segment, ask for the reference, measure, conclude.

The order matters: everything that can be found wrong without paying is found first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pizza._engine.asking import Question
from pizza._engine.driving import drive
from pizza._engine.measure import Measurement
from pizza._engine.sofar import SoFar
from pizza._explain.checks import (
    calls_left,
    check_budget,
    compare_texts,
    confirm,
    hold_special_tokens,
    negotiate,
    requests_per_coalition,
    resources,
    segment,
)
from pizza._explain.inspect import inspect
from pizza._explain.job import Context, Job
from pizza._explain.noise import floor_of, measure_noise, of_values, tested
from pizza._explain.price import allowance_for, check_tariff, prices_for, tariff_for
from pizza._explain.provenance import provenance
from pizza._explain.reference import ask_reference, progress_of
from pizza._explain.scored import checked
from pizza.abc import Game, InternalsMethod, Scores, Tariff
from pizza.attribution import Attribution, Evaluations, MetricScores
from pizza.completion import Completion, frozen_array
from pizza.errors import CapabilityError
from pizza.noise import Noise
from pizza.prompt import Unit


async def explain(job: Job, *, started: float, **owned: Any) -> Attribution:
    """Run a job with what the session owns.

    Args:
        job: What to do.
        started: Wall-clock time, for the provenance.
        **owned: The fields of the context: registry, backend, its origin, scheduler, budget,
            in_thread, confirm, meter, probed.
    """
    context = Context(job=job, **owned)
    context.allowance = allowance_for(context)
    with context.meter.measure(context.backend) as context.reading:
        return await _explain(context, started)


async def _explain(context: Context, started: float) -> Attribution:
    units = await _agreed(context)
    if isinstance(context.job.method.value, InternalsMethod):
        _watched(context, units)
        return await inspect(context, units, started)
    ready = await prepared(context, units)
    scores = await _score(context, ready)
    noise = await context.in_thread(
        tested, context, ready.noise, ready.measurement, ready.answers, len(units)
    )
    return _result(context, ready, scores, noise, started)


async def _agreed(context: Context) -> tuple[Unit, ...]:
    """The prompt's units, after what was asked for was held against what the backend can do."""
    negotiate(context)
    hold_special_tokens(context)
    return await segment(context, resources(context))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A prompt of which coalitions can be measured.

    Attributes:
        units: Its units.
        output: The reference output.
        measurement: Measures coalitions.
        game: What a method may know.
        noise: What repeated answers to the unperturbed prompt differ by, or ``None``.
        answers: Those answers, the reference first.
    """

    units: tuple[Unit, ...]
    output: Completion
    measurement: Measurement
    game: Game
    noise: Noise | None = None
    answers: tuple[Completion, ...] = ()


async def prepared(context: Context, units: tuple[Unit, ...] | None = None) -> Prepared:
    """Ask for the reference; from then on coalitions can be measured with `drive`.

    Args:
        context: The attribution's context.
        units: Its units, where they are known.
    """
    units = units or await _agreed(context)
    job = context.job
    check_budget(context, len(units))
    so_far = _watched(context, units)
    lent = resources(context)
    await context.in_thread(job.perturbation.value.prepare, job.prompt, units, lent)
    await confirm(context)
    questions, output = await _first_answers(context)
    for part in context.metrics:
        await context.in_thread(part.value.prepare, lent)
    noise, further = await measure_noise(context, questions, 1 + len(output.tokens))
    prices = await prices_for(context, questions)
    tariff = await tariff_for(context, prices, questions, units)
    check_tariff(context, tariff, len(units))
    labels = [part.label for part in context.metrics]
    if so_far is not None:
        so_far.output = output
        so_far.report(progress_of(context))
    measurement = Measurement(
        scheduler=context.scheduler,
        prompt=job.prompt,
        units=units,
        strategy=job.perturbation.value,
        questions=questions,
        n_metrics=len(context.metrics),
        n_rows=1 + len(output.tokens),
        generation=job.generation,
        account=context.account,
        in_thread=context.in_thread,
        further=further,
        floor=floor_of(noise, labels),
        allowance=context.allowance,
        price=None if prices is None else prices.of,
        skip_failures=job.skip_failures,
        on_progress=job.on_progress,
        so_far=so_far,
    )
    return Prepared(
        units=units,
        output=output,
        measurement=measurement,
        game=_game(context, units, len(output.tokens), tariff, of_values(noise, labels)),
        noise=noise,
        answers=(questions[-1].reference, *further),
    )


def _watched(context: Context, units: tuple[Unit, ...]) -> SoFar | None:
    """What a watcher is told through; the units at once, when all free checks are done."""
    if context.job.on_partial is None:
        return None
    so_far = SoFar(units, context.job.on_partial)
    so_far.report(progress_of(context))
    return so_far


async def _first_answers(context: Context) -> tuple[list[Question], Completion]:
    try:
        return await ask_reference(context)
    except CapabilityError:
        # Some models tell only when asked that they give no log-probabilities. Who named a metric
        # gets the error; who named none gets an answer.
        plain = context.job.target.kind == "completion" and context.job.target.span is None
        if context.job.metrics is not None or not plain or context.job.evidence == "score":
            raise
        compare_texts(context)
        return await ask_reference(context)


def _game(
    context: Context,
    units: Sequence[Unit],
    n_tokens: int,
    tariff: Tariff | None,
    noise: tuple[Any, Any],
) -> Game:
    from pizza.segmenters.groups import groups

    job = context.job
    left = calls_left(context)
    most = [] if left is None else [left // requests_per_coalition(context)]
    if tariff is not None:
        most.append(tariff.calls(1.0))
    return Game(
        n_units=len(units),
        n_columns=len(context.metrics) * (1 + n_tokens),
        groups=frozen_array(groups(job.prompt, units), dtype=np.int64),
        lengths=frozen_array([len(u.text) for u in units], dtype=np.int64),
        seed=job.seed,
        max_calls=min(most, default=None),
        tariff=tariff,
        noise=noise[0],
        noise_all=noise[1],
    )


async def _score(context: Context, ready: Prepared) -> Scores:
    method, game = context.job.method, ready.game
    scores = await drive(method.value.plan(game), ready.measurement, game.n_units, method.name)
    return checked(scores, game, method.name)


def _result(
    context: Context, ready: Prepared, scores: Scores, noise: Noise | None, started: float
) -> Attribution:
    measurement, output = ready.measurement, ready.output
    n_rows = 1 + len(output.tokens)
    labels = [part.label for part in context.metrics]

    def rows(array: Any, index: int) -> Any:
        return None if array is None else array[index * n_rows : (index + 1) * n_rows]

    effects = measurement.effects
    account = context.account
    return Attribution(
        prompt=context.job.prompt,
        units=ready.units,
        target=context.job.target,
        output=output,
        results=tuple(
            MetricScores(
                metric=label,
                # + 0.0: no negative zeros, which look like a sign that is not there.
                scores=rows(scores.values, i) + 0.0,
                standard_errors=rows(scores.standard_errors, i),
            )
            for i, label in enumerate(labels)
        ),
        evaluations=Evaluations(
            coalitions=measurement.coalitions,
            effects={label: effects[:, i] for i, label in enumerate(labels)},
            answers=measurement.answers,
        ),
        calls=account.calls,
        cache_hits=account.cache_hits,
        usage=account.usage,
        cost=account.cost,
        provenance=provenance(context, scores.details, started, ready.game),
        noise=noise,
        warnings=(
            *context.warnings,
            *measurement.warnings,
            *scores.warnings,
            *_warned_of_budget(context, measurement),
        ),
    )


def _warned_of_budget(context: Context, measurement: Measurement) -> tuple[str, ...]:
    allowance = context.allowance
    if allowance is None or not allowance.refused:
        return ()
    planned = len(measurement.coalitions)
    said = (
        f"the budget of {allowance.budget} was used up after {planned - allowance.refused} of "
        f"{planned} coalitions: answers took more than the reference did. The rest is left out."
    )
    return (said,)
