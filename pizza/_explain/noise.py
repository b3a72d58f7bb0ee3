# SPDX-License-Identifier: Apache-2.0
"""Models that answer one prompt in several ways are measured, not trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pizza._engine.asking import Question
from pizza._engine.measure import Measurement
from pizza._explain.checks import ANSWERS, answers_wanted
from pizza._explain.job import Context
from pizza._explain.reference import ask
from pizza._explain.shift import distances, p_value
from pizza.completion import Completion
from pizza.noise import Noise

_ROOM = 32
"""Calls from which a budget spares one to see whether a model at temperature 0 repeats itself."""


async def measure_noise(
    context: Context, questions: Sequence[Question], n_rows: int
) -> tuple[Noise | None, list[Completion]]:
    """Ask the unperturbed prompt again, as often as it takes to know the noise.

    Args:
        context: The attribution's context.
        questions: What is asked of every coalition.
        n_rows: ``1 + n_output_tokens``.

    Returns:
        The noise, or ``None`` when nothing was repeated; and the further answers.

    Cost: 3 calls for a model that samples (or one less than the answers per coalition, if these
        are more), 1 for a model that might, none where an output is scored or the model repeats
        itself.
    """
    question = next((q for q in questions if q.kind == "complete"), None)
    if question is None or context.job.target.kind != "completion":
        return None, []
    wanted = answers_wanted(context)
    further: list[Completion] = []
    if wanted == 1 and _worth_a_check(context):
        further.append(await _again(context, question, 1))
        wanted = ANSWERS if further[0].text != question.reference.text else 2
        # One that was no repetition of the reference: the model samples, whatever it promises.
    while len(further) < wanted - 1:
        further.append(await _again(context, question, len(further) + 1))
    if not further:
        return None, []
    floor, sigma = {}, {}
    for number, part in enumerate(context.metrics):
        if any(number == n for n, _ in question.metrics):
            effects = np.asarray(part.value.compare(question.reference, further), dtype=float)
        else:
            # A teacher-forced score is the same every time.
            effects = np.zeros((len(further), n_rows))
        floor[part.label], sigma[part.label] = _moments(effects)
    return (
        Noise(answers=1 + len(further), repeats=question.repeats, floor=floor, sigma=sigma),
        further,
    )


def _worth_a_check(context: Context) -> bool:
    budget = context.job.budget
    if context.job.repeats is not None or context.backend.deterministic or budget is None:
        return False
    return budget.max_calls is None or budget.max_calls >= _ROOM


async def _again(context: Context, question: Question, sample: int) -> Completion:
    job = context.job
    return await ask(context, question.request(job.prompt, job.generation, sample))


def _moments(effects: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation over rows, of what is defined; NaN where nothing is."""
    known = ~np.isnan(effects)
    count = known.sum(axis=0)
    filled = np.where(known, effects, 0.0)
    mean = np.where(count > 0, filled.sum(axis=0) / np.maximum(count, 1), np.nan)
    spread = np.where(known, effects - mean, 0.0)
    # Of a single repetition nothing is known of the spread but what it differs by itself.
    variance = (spread**2).sum(axis=0) / np.maximum(count - 1, 1)
    return mean, np.where(count > 0, np.sqrt(variance), np.nan)


def of_values(
    noise: Noise | None, labels: Sequence[str]
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """The noise of each column's values, and of the value of all units; ``None`` = there is none.

    Returns:
        Standard deviations ``(n_columns,)`` twice.
    """
    if noise is None or not noise.varies:
        return None, None
    sigma = np.nan_to_num(np.concatenate([noise.sigma[label] for label in labels]))
    return sigma / np.sqrt(noise.repeats), sigma / np.sqrt(noise.answers - 1)


def floor_of(noise: Noise | None, labels: Sequence[str]) -> NDArray[np.float64] | None:
    """The floors as an array ``(n_metrics, n_rows)``."""
    return None if noise is None else np.stack([noise.floor[label] for label in labels])


def tested(
    context: Context,
    noise: Noise | None,
    measurement: Measurement,
    answers: Sequence[Completion],
    n_units: int,
) -> Noise | None:
    """The noise with a test for each unit that some coalition lacked alone.

    Args:
        context: The attribution's context.
        noise: What was found so far.
        measurement: With the coalitions' answers.
        answers: All answers to the unperturbed prompt, the reference first.
        n_units: Number of units.
    """
    if noise is None or noise.repeats < 2:
        return noise
    repeated = [p for p in context.metrics if not (p.evidence == "tokens" and context.scored)]
    p_values: Mapping[str, NDArray[np.float64]] = {
        part.label: np.full(n_units, np.nan) for part in repeated
    }
    for unit, completions in measurement.without_one():
        for part in repeated:
            matrix = distances(part.value, [*answers, *completions])
            p_values[part.label][unit] = p_value(matrix, len(answers), context.job.seed)
    return replace(noise, p_values=p_values)
