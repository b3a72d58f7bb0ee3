# SPDX-License-Identifier: Apache-2.0
"""Everything that can be found wrong without paying for it."""

from __future__ import annotations

from dataclasses import replace

from pizza._explain.job import Context
from pizza._parts import require, resolve_metrics
from pizza.abc import Backend, InternalsMethod, Resources, Tokenizer, TokenTable
from pizza.capability import Capability
from pizza.errors import (
    BudgetTooSmallError,
    CapabilityError,
    ConfigError,
    PluginContractError,
)
from pizza.prompt import Unit

USUAL_METRICS = ("logprob-diff", "edit-distance")
"""What is measured when nobody names a metric: with log-probabilities, and without."""

ANSWERS = 4
"""Answers to the unperturbed prompt from which the noise of a model is estimated."""


def negotiate(context: Context) -> None:
    """Hold what the parts and the target need against what the backend may be able to do.

    Raises:
        CapabilityError, ConfigError: They do not fit; nothing was sent.
    """
    job, backend = context.job, context.backend
    kind = job.target.kind
    declared = backend.capabilities | backend.uncertain
    if kind == "label" and Capability.CLASSIFY not in declared:
        raise _target_error(backend, "a class label", Capability.CLASSIFY)
    if isinstance(job.method.value, InternalsMethod):
        _negotiate_inspection(context, declared)
        return
    context.metrics = job.metrics or resolve_metrics(context.registry, USUAL_METRICS[0])
    if job.metrics is None and not declared & {Capability.LOGPROBS, Capability.SCORE}:
        compare_texts(context)
    if _needs_score(context) and job.evidence == "complete":
        raise ConfigError(
            f"the target {kind!r} is scored, not written: evidence='complete' cannot explain it. "
            "Use evidence='auto'."
        )
    texts = [part.name for part in context.metrics if part.evidence != "tokens"]
    if texts and (kind == "contrast" or job.target.span):
        raise ConfigError(
            f"a contrast or a span of the output cannot be explained by {', '.join(texts)}: "
            "these compare whole texts. Use logprob-diff or prob-diff."
        )
    _settle_evidence(context, declared)


def _negotiate_inspection(context: Context, capabilities: frozenset[Capability]) -> None:
    job, backend = context.job, context.backend
    if job.metrics is not None:
        raise ConfigError(
            f"{job.method.name!r} looks inside the model and compares no outputs, so it takes no "
            f"metrics, and {', '.join(part.label for part in job.metrics)} was named. What it "
            f"explains is an option of the method: '{job.method.name}:function=prob'."
        )
    if job.budget is not None:
        raise ConfigError(
            f"{job.method.name!r} looks inside the model and sends no calls: a budget of "
            f"{job.budget} means nothing to it. Leave it out."
        )
    if job.evidence != "auto":
        raise ConfigError(
            f"{job.method.name!r} looks inside the model: evidence={job.evidence!r} means nothing "
            "to it. Leave it out."
        )
    context.capabilities = capabilities
    for part in (job.method, job.units):
        require(context.registry, part, capabilities, backend.name)


def hold_special_tokens(context: Context) -> None:
    """Keep what the model reads as special tokens out of all units; the result says so."""
    job = context.job
    spans = [
        span
        for span in context.backend.special_spans(job.prompt)
        if not any(
            fixed.message == span.message and fixed.start <= span.start and span.end <= fixed.end
            for fixed in job.prompt.fixed
        )
    ]
    if spans:
        context.job = replace(job, prompt=job.prompt.with_fixed(spans))


async def confirm(context: Context) -> None:
    """Find out about the capabilities that the backend is not sure of, and negotiate again.

    Raises:
        CapabilityError: The backend cannot do what it thought it might.

    Cost: at most one short request per uncertain capability that is wanted, once a session.
    """
    wanted = frozenset({Capability.SCORE} if context.scored else ())
    if context.allowance is not None:
        context.allowance.calls += probes(context)
    known = await context.confirm(wanted, context.account)
    if context.job.metrics is None and not known & {Capability.LOGPROBS, Capability.SCORE}:
        compare_texts(context)
    _settle_evidence(context, known)


def _settle_evidence(context: Context, capabilities: frozenset[Capability]) -> None:
    job, backend = context.job, context.backend
    tokens = any(part.evidence == "tokens" for part in context.metrics)
    can_score = Capability.SCORE in capabilities
    if _needs_score(context) and not can_score:
        named = {"text": "a given text", "contrast": "a contrast", "label": "a class label"}
        raise _target_error(
            backend, named.get(job.target.kind, "scored evidence"), Capability.SCORE
        )
    context.capabilities = capabilities
    context.scored = tokens and can_score and job.evidence != "complete"
    if context.scored:
        capabilities |= {Capability.LOGPROBS}
    for part in (*context.metrics, job.method, job.perturbation, job.units):
        require(context.registry, part, capabilities, backend.name)


def _needs_score(context: Context) -> bool:
    target = context.job.target
    given = target.kind in ("text", "contrast", "label")
    asked = context.job.evidence == "score" or given or target.span
    return bool(asked) and any(part.evidence == "tokens" for part in context.metrics)


def compare_texts(context: Context) -> None:
    """Go on with a metric that needs no log-probabilities, and say so in the result."""
    context.warnings.append(
        f"{context.backend.name} gives no log-probabilities: the texts are compared instead "
        "(edit-distance), which sees only changes large enough to change the words."
    )
    context.metrics = resolve_metrics(context.registry, USUAL_METRICS[1])
    context.scored = False


def _target_error(backend: Backend, what: str, needed: Capability) -> CapabilityError:
    return CapabilityError(
        f"{what} can only be explained with a model that offers {needed.value!r}, and "
        f"{backend.name} does not. Explain the model's own completion (no target), or use a "
        "backend that does, e.g. 'embedded' or a server with echo or prompt log-probabilities.",
        needed=needed.value,
        backend=backend.name,
        alternatives=("completion",),
    )


def resources(context: Context) -> Resources:
    """What segmenters, strategies and metrics may borrow from the session."""

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


async def segment(context: Context, resources: Resources) -> tuple[Unit, ...]:
    """The prompt's units, checked: a wrong segmenter would make all that follows wrong."""
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


def check_budget(context: Context, n_units: int) -> None:
    """Refuse a budget that the method cannot do with, before the reference is paid for."""
    allowed = calls_left(context)
    if allowed is None:
        return
    method = context.job.method
    least, _ = method.value.calls(n_units)
    references = references_needed(context) + probes(context)
    needed = least * requests_per_coalition(context) + references
    if needed > allowed:
        raise BudgetTooSmallError(
            f"{method.name!r} needs at least {needed} calls for {n_units} units ({references} "
            f"of them for the reference) and the budget has {allowed} left. Raise "
            f"{'max_calls' if context.allowance is None else 'the budget'}, use larger units "
            "(sentence, paragraph), or the method 'hierarchical'.",
            needed=needed,
            allowed=allowed,
        )


def calls_left(context: Context) -> int | None:
    """Calls that the session's budget and the attribution's own still have; ``None`` = no cap."""
    left: list[int] = []
    if (cap := context.budget.max_calls) is not None:
        left.append(max(0, cap - context.scheduler.spent.calls))
    if context.allowance is not None and (cap := context.allowance.budget.max_calls) is not None:
        left.append(max(0, cap - context.allowance.calls))
    return min(left, default=None)


def requests_per_coalition(context: Context) -> int:
    """Requests that every coalition costs."""
    kinds = {p.evidence == "tokens" and context.scored for p in context.metrics}
    written = (context.job.repeats or 1) if False in kinds else 0
    return written + (True in kinds) + (context.job.target.kind == "contrast")


def probes(context: Context) -> int:
    """Requests that find out what the model can do.

    Counted also when the session knows already: what an attribution may do depends on its budget,
    and not on what was asked before it.
    """
    asks = context.job.evidence != "complete" and any(
        part.evidence == "tokens" for part in context.metrics
    )
    return int(asks and Capability.SCORE in context.backend.uncertain | context.probed)


def references_needed(context: Context) -> int:
    """Requests about the unperturbed prompt that cannot be done without."""
    scored = context.scored * (1 + (context.job.target.kind == "contrast"))
    if context.job.target.kind != "completion":
        return scored
    written = any(not (p.evidence == "tokens" and context.scored) for p in context.metrics)
    return 1 + scored + (answers_wanted(context) - 1 if written else 0)


def samples(context: Context) -> bool:
    """Whether the model's answers to one prompt are known to vary."""
    return context.job.generation.temperature > 0 or context.backend.samples


def answers_wanted(context: Context) -> int:
    """Answers to the unperturbed prompt that tell the noise of a model that is known to sample."""
    if context.job.repeats is not None:
        return max(context.job.repeats, ANSWERS if context.job.repeats > 1 else 1)
    return ANSWERS if samples(context) else 1
