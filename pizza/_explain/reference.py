# SPDX-License-Identifier: Apache-2.0
"""The unperturbed prompt: what is asked about it, and so about every coalition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from pizza._engine.asking import Question
from pizza._explain.job import Context
from pizza.completion import Completion, Request
from pizza.errors import CapabilityError, IncomparableError
from pizza.progress import Progress


async def ask_reference(context: Context) -> tuple[list[Question], Completion]:
    """Ask about the unperturbed prompt; say what is asked for every coalition."""
    job = context.job
    report_reference(context)
    tokens = tuple((i, p.value) for i, p in enumerate(context.metrics) if p.evidence == "tokens")
    texts = tuple((i, p.value) for i, p in enumerate(context.metrics) if p.evidence != "tokens")
    logprobs = bool(tokens) and not context.scored
    written: Completion | None = None
    if job.target.kind == "completion":
        written = await ask(
            context, Request(prompt=job.prompt, logprobs=logprobs, generation=job.generation)
        )
    elif not context.scored:
        written = Completion(text=target_text(context))
    output = written
    questions: list[Question] = []
    if context.scored:
        questions, output = await _scored_questions(context, written, tokens)
    if texts or (tokens and not context.scored):
        reference = cast("Completion", output)
        if logprobs and reference.logprobs is None:
            works = ("edit-distance", "exact-match", "rouge-l", "jaccard")
            raise CapabilityError(
                f"{context.backend.name} answered without log-probabilities. Metrics that work "
                f"without them: {', '.join(works)}.",
                needed="logprobs",
                backend=context.backend.name,
                alternatives=works,
            )
        questions.append(
            Question(
                kind="complete",
                reference=reference,
                metrics=texts if context.scored else (*tokens, *texts),
                logprobs=logprobs,
                repeats=job.repeats or 1,
            )
        )
    return questions, cast("Completion", output)


async def _scored_questions(
    context: Context, written: Completion | None, metrics: Sequence[tuple[int, Any]]
) -> tuple[list[Question], Completion]:
    target = context.job.target
    ids = target.token_ids
    if written is None:
        text = target_text(context)
    else:
        check_written(written)
        text, ids = written.text, written.token_ids
    questions: list[Question] = []
    first: Completion | None = None
    sides = [(text, ids, 1)] + ([(target.versus, None, -1)] if target.versus else [])
    for side, side_ids, sign in sides:
        reference = await ask(
            context,
            Request(
                prompt=context.job.prompt,
                kind="score",
                target=side,
                target_ids=side_ids,
                generation=context.job.generation,
            ),
        )
        if first is None:
            first = reference
        questions.append(
            Question(
                kind="score",
                target=side,
                target_ids=side_ids,
                reference=reference,
                window=reference.token_window(target.span) if target.span else None,
                metrics=tuple(metrics),
                sign=sign,
            )
        )
    assert first is not None  # noqa: S101 - there is at least one side
    # The scored reference says how the output was tokenised; the written one, how it ended.
    if written is not None:
        first = replace(first, finish_reason=written.finish_reason)
    return questions, first


def target_text(context: Context) -> str:
    """The text of a target that is given."""
    target = context.job.target
    if target.token_ids is not None:
        return context.backend.decode(target.token_ids)
    return cast("str", target.text)


def check_written(written: Completion) -> None:
    """Refuse an output of nothing.

    Raises:
        IncomparableError: There is nothing whose support could be measured.
    """
    if not written.text and not written.token_ids:
        raise IncomparableError(
            "the model answered nothing, so there is no output whose support could be measured. "
            "Change the prompt, raise max_tokens, or give a target text."
        )


async def ask(context: Context, request: Request) -> Completion:
    """One answer about the unperturbed prompt, counted."""
    answer = await context.scheduler.submit(request)
    context.account.add(answer)
    if context.allowance is not None:
        context.allowance.settle(answer.completion.usage)
    report_reference(context)
    return answer.completion


def report_reference(context: Context) -> None:
    """Tell who watches how far the reference is."""
    if context.job.on_progress is not None:
        context.job.on_progress(progress_of(context))


def progress_of(context: Context) -> Progress:
    """How far an attribution is before its first coalition."""
    account = context.account
    return Progress(
        phase="reference",
        done=0,
        total=0,
        calls=account.calls,
        cache_hits=account.cache_hits,
    )
