# SPDX-License-Identifier: Apache-2.0
"""What coalitions are expected to cost, where a budget is counted in tokens or dollars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pizza._engine.allowance import Allowance
from pizza._engine.measure import Question
from pizza._explain.checks import requests_per_coalition
from pizza._explain.job import Context
from pizza.abc import Tariff
from pizza.completion import frozen_array
from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.limits import Budget
from pizza.prompt import Prompt, Unit


def allowance_for(context: Context) -> Allowance | None:
    """The attribution's own budget, unspent.

    Raises:
        ConfigError: It cannot be kept.
    """
    budget = context.job.budget
    if budget is None:
        return None
    if budget.max_tokens is not None and budget.max_cost is not None:
        raise ConfigError(
            f"the budget of an attribution counts tokens or dollars, not both ({budget}). Give "
            "the session the other cap: Session(budget=pizza.Budget(max_cost=...))."
        )
    if budget.max_cost is not None and context.backend.price is None:
        raise ConfigError(
            f"a budget of ${budget.max_cost:g} cannot be kept: the price of "
            f"{context.backend.name} is not known. Use a budget in tokens or calls, or give the "
            "backend its price."
        )
    return Allowance(budget=budget, price=context.backend.price)


async def tariff_for(
    context: Context, questions: Sequence[Question], units: Sequence[Unit]
) -> Tariff | None:
    """What the coalitions of a prompt cost, measured by the reference that was paid for.

    The prompt with and without all units is counted by the backend; what the units add is divided
    among them by length, and both are scaled to what the reference really took. Outputs are taken
    to be as long as the reference's.

    Returns:
        The tariff, or ``None`` for a budget in calls alone.
    """
    allowance = context.allowance
    if allowance is None or allowance.limit is None:
        return None
    job = context.job

    def counted() -> tuple[float, float]:
        strategy = job.perturbation.value
        none = strategy.render(job.prompt, units, np.zeros(len(units), dtype=bool))
        return _cost(context, allowance, questions, none), _cost(
            context, allowance, questions, job.prompt
        )

    none, whole = await context.in_thread(counted)
    lengths = np.array([len(unit.text) for unit in units], dtype=float)
    per_coalition = requests_per_coalition(context)
    calls = allowance.budget.max_calls
    return Tariff(
        currency=allowance.currency,
        call=none,
        units=frozen_array((whole - none) * lengths / lengths.sum()),
        limit=max(0.0, allowance.limit - allowance.spent),
        max_calls=None if calls is None else max(0, calls - allowance.calls) // per_coalition,
    )


def _cost(
    context: Context, allowance: Allowance, questions: Sequence[Question], prompt: Prompt
) -> float:
    """Of one coalition that is rendered so."""
    job, total = context.job, 0.0
    for question in questions:
        reference = question.reference
        counted = float(context.backend.count_tokens(question.request(prompt, job.generation)))
        written = 0
        if question.kind == "complete":
            written = max(len(reference.tokens), reference.usage.completion_tokens, 1)
        elif reference.usage.prompt_tokens:
            whole = context.backend.count_tokens(question.request(job.prompt, job.generation))
            counted = counted * reference.usage.prompt_tokens / max(1, whole)
            written = reference.usage.completion_tokens
        total += question.repeats * allowance.amount(counted, written)
    return total


def check_tariff(context: Context, tariff: Tariff | None, n_units: int) -> None:
    """Refuse a budget that does not pay for what the method needs at least.

    Raises:
        BudgetTooSmallError: It does not.
    """
    if tariff is None:
        return
    method = context.job.method
    least, _ = method.value.calls(n_units)
    affordable = tariff.calls(0.5)
    if least > affordable:
        budget: Budget = context.job.budget or Budget()
        needed = least * (tariff.call + 0.5 * float(tariff.units.sum()))
        amount = f"${needed:.4g}" if tariff.currency == "dollars" else f"{needed:,.0f} tokens"
        raise BudgetTooSmallError(
            f"{method.name!r} needs at least {least} coalitions for {n_units} units, about "
            f"{amount} beside the reference, and the budget of {budget} pays for {affordable}. "
            "Raise the budget, or use larger units (sentence, paragraph).",
            needed=least,
            allowed=affordable,
        )
