# SPDX-License-Identifier: Apache-2.0
"""One attribution from first to last: check, segment, ask for the reference, measure, conclude.

The order matters: everything that can be found wrong without paying is found first.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pizza import __version__
from pizza._engine.measure import Account, Measurement, Progress, Question, drive
from pizza._parts import Part, require, resolve_metrics
from pizza._plugins import Registry
from pizza.abc import Backend, Game, Resources, Scores, Tokenizer, TokenTable
from pizza.attribution import Attribution, Evaluations, MetricScores, Target
from pizza.capability import Capability
from pizza.completion import Completion, Generation, Request, frozen_array
from pizza.errors import (
    BudgetTooSmallError,
    CapabilityError,
    ConfigError,
    IncomparableError,
    PluginContractError,
)
from pizza.limits import Budget
from pizza.prompt import Prompt, Unit

if TYPE_CHECKING:
    from pizza._engine.scheduler import Scheduler

Confirm = Callable[[frozenset[Capability], Account], Awaitable[frozenset[Capability]]]
InThread = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """What `Session.attribute` was asked for, with all names resolved."""

    prompt: Prompt
    units: Part
    method: Part
    perturbation: Part
    metrics: tuple[Part, ...] | None
    target: Target
    generation: Generation
    evidence: str
    seed: int
    skip_failures: bool
    on_progress: Callable[[Progress], None] | None


@dataclass(slots=True, kw_only=True, eq=False)
class _Context:
    """What the steps of one attribution share."""

    job: Job
    registry: Registry
    backend: Backend
    scheduler: Scheduler
    budget: Budget
    origin: tuple[str, str, str]
    in_thread: InThread
    confirm: Confirm
    account: Account = field(default_factory=Account)
    capabilities: frozenset[Capability] = frozenset()
    metrics: tuple[Part, ...] = ()
    scored: bool = False
    warnings: list[str] = field(default_factory=list)
    tokenizer_name: str | None = None


async def explain(job: Job, *, started: float, **owned: Any) -> Attribution:
    """Run a job with what the session owns.

    Args:
        job: What to do.
        started: Wall-clock time, for the provenance.
        **owned: The fields of the context: registry, backend, its origin, scheduler, budget,
            in_thread, confirm.
    """
    context = _Context(job=job, **owned)
    await _negotiate(context)
    resources = _resources(context)
    units = await _segment(context, resources)
    _check_budget(context, len(units))
    await context.in_thread(job.perturbation.value.prepare, job.prompt, units, resources)
    for part in context.metrics:
        await context.in_thread(part.value.prepare, resources)
    questions, output = await _reference(context)
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
        skip_failures=job.skip_failures,
        on_progress=job.on_progress,
    )
    scores = await _score(context, measurement, units, len(output.tokens))
    return _result(context, measurement, units, output, scores, started)


# --- checks that cost nothing ----------------------------------------------------------------


async def _negotiate(context: _Context) -> None:
    job, backend = context.job, context.backend
    kind = job.target.kind
    declared = backend.capabilities | backend.uncertain
    if kind == "label" and Capability.CLASSIFY not in declared:
        raise _target_error(backend, "a class label", Capability.CLASSIFY)
    if job.metrics is None:
        context.metrics = _default_metrics(context, declared)
    else:
        context.metrics = job.metrics
    tokens = any(part.evidence == "tokens" for part in context.metrics)
    needs_score = job.evidence == "score" or kind in ("text", "contrast") or bool(job.target.span)
    wanted = set[Capability]()
    if tokens and job.evidence != "complete":
        wanted.add(Capability.SCORE)
    context.capabilities = await context.confirm(frozenset(wanted), context.account)
    can_score = Capability.SCORE in context.capabilities
    if needs_score and tokens and not can_score:
        what = {"text": "a given text", "contrast": "a contrast"}.get(kind, "scored evidence")
        raise _target_error(backend, what, Capability.SCORE)
    if needs_score and tokens and job.evidence == "complete":
        raise ConfigError(
            f"the target {kind!r} is scored, not written: evidence='complete' cannot explain it. "
            "Use evidence='auto'."
        )
    context.scored = tokens and can_score and job.evidence != "complete"
    texts = [part.name for part in context.metrics if part.evidence != "tokens"]
    if texts and (kind == "contrast" or job.target.span):
        raise ConfigError(
            f"a contrast or a span of the output cannot be explained by {', '.join(texts)}: "
            "these compare whole texts. Use logprob-diff or prob-diff."
        )
    effective = context.capabilities
    if context.scored:
        effective |= {Capability.LOGPROBS}
    for part in (*context.metrics, job.method, job.perturbation, job.units):
        require(context.registry, part, effective, backend.name)


def _default_metrics(context: _Context, declared: frozenset[Capability]) -> tuple[Part, ...]:
    if declared & {Capability.LOGPROBS, Capability.SCORE}:
        return resolve_metrics(context.registry, "logprob-diff")
    context.warnings.append(
        f"{context.backend.name} gives no log-probabilities: the texts are compared instead "
        "(edit-distance), which sees only changes large enough to change the words."
    )
    return resolve_metrics(context.registry, "edit-distance")


def _target_error(backend: Backend, what: str, needed: Capability) -> CapabilityError:
    return CapabilityError(
        f"{what} can only be explained with a model that offers {needed.value!r}, and "
        f"{backend.name} does not. Explain the model's own completion (no target), or use a "
        "backend that does, e.g. 'embedded' or a server with echo or prompt log-probabilities.",
        needed=needed.value,
        backend=backend.name,
        alternatives=("completion",),
    )


def _resources(context: _Context) -> Resources:
    def tokenizer() -> Tokenizer:
        backend = context.backend
        if Capability.TOKENIZE in backend.capabilities:
            found = backend.tokenizer
        else:
            from pizza.tokenizers import encoding_for

            found = encoding_for(backend.name.partition(":")[2] or backend.name)
        context.tokenizer_name = found.name
        return found

    def token_table() -> TokenTable:
        return context.backend.token_table

    return Resources(tokenizer=tokenizer, token_table=token_table, seed=context.job.seed)


async def _segment(context: _Context, resources: Resources) -> tuple[Unit, ...]:
    job = context.job
    units = tuple(await context.in_thread(job.units.value.segment, job.prompt, resources))
    if not units:
        fixed = f" ({len(job.prompt.fixed)} parts are fixed)" if job.prompt.fixed else ""
        raise ConfigError(
            f"there is nothing to perturb: the segmenter {job.units.name!r} found no units in the "
            f"prompt{fixed}. Use smaller units or fix less."
        )
    previous = (-1, 0)
    for unit in units:
        if (unit.message, unit.start) < previous or unit.end <= unit.start:
            raise PluginContractError(
                f"the segmenter {job.units.name!r} returned units out of order, overlapping or "
                f"empty at {unit!r}."
            )
        previous = (unit.message, unit.end)
    return units


def _check_budget(context: _Context, n_units: int) -> None:
    allowed = _calls_left(context)
    if allowed is None:
        return
    method = context.job.method
    least, _ = method.value.calls(n_units)
    references = 1 + context.scored
    needed = least * _questions_per_coalition(context) + references
    if needed > allowed:
        raise BudgetTooSmallError(
            f"{method.name!r} needs at least {needed} calls for {n_units} units ({references} "
            f"of them for the reference) and the budget has {allowed} left. Raise max_calls, use "
            "larger units (sentence, paragraph), or the method 'hierarchical'.",
            needed=needed,
            allowed=allowed,
        )


def _calls_left(context: _Context) -> int | None:
    """Calls that the session's budget still has, or ``None`` without a cap."""
    cap = context.budget.max_calls
    return None if cap is None else max(0, cap - context.scheduler.statistics.calls)


def _questions_per_coalition(context: _Context) -> int:
    kinds = {p.evidence == "tokens" and context.scored for p in context.metrics}
    return len(kinds) + (context.job.target.kind == "contrast")


# --- the reference ---------------------------------------------------------------------------


async def _reference(context: _Context) -> tuple[list[Question], Completion]:
    """Ask about the unperturbed prompt; say what is asked for every coalition."""
    job = context.job
    _report_reference(context)
    tokens = tuple((i, p.value) for i, p in enumerate(context.metrics) if p.evidence == "tokens")
    texts = tuple((i, p.value) for i, p in enumerate(context.metrics) if p.evidence != "tokens")
    logprobs = bool(tokens) and not context.scored
    written: Completion | None = None
    if job.target.kind == "completion":
        written = await _ask(
            context, Request(prompt=job.prompt, logprobs=logprobs, generation=job.generation)
        )
    elif job.target.text is not None and not context.scored:
        written = Completion(text=job.target.text)
    output = written
    questions: list[Question] = []
    if context.scored:
        questions, output = await _scored_questions(context, written, tokens)
    if texts or (tokens and not context.scored):
        reference = cast("Completion", output)
        if logprobs and reference.logprobs is None:
            raise IncomparableError(
                f"{context.backend.name} answered without log-probabilities. Metrics that work "
                "without them: edit-distance, exact-match, rouge-l, jaccard."
            )
        questions.append(
            Question(
                kind="complete",
                reference=reference,
                metrics=texts if context.scored else (*tokens, *texts),
                logprobs=logprobs,
            )
        )
    return questions, cast("Completion", output)


async def _scored_questions(
    context: _Context, written: Completion | None, metrics: Sequence[tuple[int, Any]]
) -> tuple[list[Question], Completion]:
    target = context.job.target
    text = written.text if written is not None else cast("str", target.text)
    if not text:
        raise IncomparableError(
            "the model answered nothing, so there is no output whose support could be measured. "
            "Change the prompt, raise max_tokens, or give a target text."
        )
    questions: list[Question] = []
    first: Completion | None = None
    sides = [(text, 1)] + ([(target.versus, -1)] if target.versus else [])
    for side, sign in sides:
        reference = await _ask(
            context,
            Request(
                prompt=context.job.prompt,
                kind="score",
                target=side,
                generation=context.job.generation,
            ),
        )
        if first is None:
            first = reference
        questions.append(
            Question(
                kind="score",
                target=side,
                reference=reference,
                window=_window(reference, target.span) if target.span else None,
                metrics=tuple(metrics),
                sign=sign,
            )
        )
    assert first is not None  # noqa: S101 - there is at least one side
    # The scored reference says how the output was tokenised; the written one, how it ended.
    if written is not None:
        first = replace(first, finish_reason=written.finish_reason)
    return questions, first


def _window(completion: Completion, span: tuple[int, int]) -> tuple[int, int]:
    """The range of tokens that a code-point span of the output touches."""
    at = 0
    touched: list[int] = []
    for index, token in enumerate(completion.tokens):
        if at < span[1] and at + len(token) > span[0]:
            touched.append(index)
        at += len(token)
    if not touched:
        raise ConfigError(
            f"the target span {span} is outside of the output, which has {at} characters: "
            f"{completion.text[:80]!r}."
        )
    return touched[0], touched[-1] + 1


async def _ask(context: _Context, request: Request) -> Completion:
    answer = await context.scheduler.submit(request)
    context.account.add(answer)
    _report_reference(context)
    return answer.completion


def _report_reference(context: _Context) -> None:
    if context.job.on_progress is not None:
        account = context.account
        context.job.on_progress(
            Progress(
                phase="reference",
                done=0,
                total=0,
                calls=account.calls,
                cache_hits=account.cache_hits,
            )
        )


# --- scores ----------------------------------------------------------------------------------


async def _score(
    context: _Context, measurement: Measurement, units: Sequence[Unit], n_tokens: int
) -> Scores:
    from pizza.segmenters.groups import groups

    job = context.job
    left = _calls_left(context)
    game = Game(
        n_units=len(units),
        n_columns=len(context.metrics) * (1 + n_tokens),
        groups=frozen_array(groups(job.prompt, units), dtype=np.int64),
        lengths=frozen_array([len(u.text) for u in units], dtype=np.int64),
        seed=job.seed,
        max_calls=None if left is None else left // _questions_per_coalition(context),
    )
    scores = await drive(job.method.value.plan(game), measurement, len(units), job.method.name)
    expected = (game.n_columns, game.n_units)
    if not isinstance(scores, Scores) or scores.values.shape != expected:
        shape = getattr(getattr(scores, "values", None), "shape", None)
        raise PluginContractError(
            f"the method {job.method.name!r} returned {type(scores).__name__} of shape {shape}; "
            f"expected pizza.abc.Scores with values (n_columns, n_units) = {expected}."
        )
    return scores


def _result(
    context: _Context,
    measurement: Measurement,
    units: tuple[Unit, ...],
    output: Completion,
    scores: Scores,
    started: float,
) -> Attribution:
    n_rows = 1 + len(output.tokens)
    labels = [part.label for part in context.metrics]

    def rows(array: Any, index: int) -> Any:
        return None if array is None else array[index * n_rows : (index + 1) * n_rows]

    effects = measurement.effects
    account = context.account
    return Attribution(
        prompt=context.job.prompt,
        units=units,
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
        provenance=_provenance(context, scores.details, started),
        warnings=(*context.warnings, *measurement.warnings),
    )


def _provenance(context: _Context, details: Mapping[str, Any], started: float) -> dict[str, Any]:
    job = context.job
    generation = job.generation
    stamp = dt.datetime.fromtimestamp(started, tz=dt.UTC)
    return {
        "pizza_version": __version__,
        "created_at": stamp.isoformat(timespec="seconds"),
        "backend": context.backend.name,
        "backend_identity": context.backend.identity,
        "backend_plugin": dict(
            zip(("plugin", "distribution", "version"), context.origin, strict=True)
        ),
        "method": {**job.method.to_dict(), "details": dict(details)},
        "perturbation": job.perturbation.to_dict(),
        "segmenter": job.units.to_dict(),
        "metrics": [part.to_dict() for part in context.metrics],
        "evidence": "score" if context.scored else "complete",
        "generation": {
            "max_tokens": generation.max_tokens,
            "temperature": generation.temperature,
            "seed": generation.seed,
            "top_logprobs": generation.top_logprobs,
            "stop": list(generation.stop),
            "extra": dict(generation.extra),
        },
        "seed": job.seed,
        "tokenizer": context.tokenizer_name,
    }
