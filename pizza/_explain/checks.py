# SPDX-License-Identifier: Apache-2.0
"""Everything that can be found wrong without paying for it."""

from __future__ import annotations

from pizza._explain.job import Context
from pizza._parts import Part, require, resolve_metrics
from pizza.abc import Backend, Resources, Tokenizer, TokenTable
from pizza.capability import Capability
from pizza.errors import (
    BudgetTooSmallError,
    CapabilityError,
    ConfigError,
    PluginContractError,
)
from pizza.prompt import Unit


async def negotiate(context: Context) -> None:
    """Hold what the parts and the target need against what the backend can do.

    Raises:
        CapabilityError, ConfigError: They do not fit; nothing was sent but a probe.
    """
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


def _default_metrics(context: Context, declared: frozenset[Capability]) -> tuple[Part, ...]:
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
    references = 1 + context.scored
    needed = least * questions_per_coalition(context) + references
    if needed > allowed:
        raise BudgetTooSmallError(
            f"{method.name!r} needs at least {needed} calls for {n_units} units ({references} "
            f"of them for the reference) and the budget has {allowed} left. Raise max_calls, use "
            "larger units (sentence, paragraph), or the method 'hierarchical'.",
            needed=needed,
            allowed=allowed,
        )


def calls_left(context: Context) -> int | None:
    """Calls that the session's budget still has, or ``None`` without a cap."""
    cap = context.budget.max_calls
    return None if cap is None else max(0, cap - context.scheduler.statistics.calls)


def questions_per_coalition(context: Context) -> int:
    """Requests that every coalition costs."""
    kinds = {p.evidence == "tokens" and context.scored for p in context.metrics}
    return len(kinds) + (context.job.target.kind == "contrast")
