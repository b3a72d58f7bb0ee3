# SPDX-License-Identifier: Apache-2.0
"""What coalitions are expected to cost, where a budget is counted in tokens or dollars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from pizza._engine.allowance import Allowance
from pizza._engine.asking import Question
from pizza._explain.checks import calls_left, requests_per_coalition
from pizza._explain.job import Context
from pizza.abc import Tariff
from pizza.completion import Request, frozen_array
from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.limits import Budget
from pizza.prompt import Unit


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


class Prices:
    """What requests are expected to cost, measured by the references that were paid for.

    Prompts are counted by the backend, and scaled to what the reference really took; outputs are
    taken to be as long as the reference's.

    Args:
        context: The attribution's context.
        allowance: Its budget.
        questions: What is asked of every coalition.
    """

    def __init__(
        self, context: Context, allowance: Allowance, questions: Sequence[Question]
    ) -> None:
        self._count = context.backend.count_tokens
        self._allowance = allowance
        self._scales: list[tuple[float, int]] = []
        job = context.job
        for question in questions:
            usage = question.reference.usage
            if question.kind == "complete":
                written = max(len(question.reference.tokens), usage.completion_tokens, 1)
                self._scales.append((1.0, written))
                continue
            counted = self._count(question.request(job.prompt, job.generation))
            ratio = usage.prompt_tokens / counted if usage.prompt_tokens and counted else 1.0
            self._scales.append((ratio, usage.completion_tokens))

    def of(self, number: int, request: Request) -> float:
        """The cost of a request that asks question ``number``, in the budget's currency."""
        ratio, written = self._scales[number]
        return self._allowance.amount(ratio * self._count(request), written)


async def prices_for(context: Context, questions: Sequence[Question]) -> Prices | None:
    """What requests cost, or ``None`` where nothing but calls is counted."""
    allowance = context.allowance
    if allowance is None or allowance.limit is None:
        return None
    return cast("Prices", await context.in_thread(Prices, context, allowance, questions))


async def tariff_for(
    context: Context, prices: Prices | None, questions: Sequence[Question], units: Sequence[Unit]
) -> Tariff | None:
    """What coalitions cost, for the method that chooses them.

    The prompt is priced with and without all units; what they add is divided among them by length.

    Returns:
        The tariff, or ``None`` for a budget in calls alone, and where nothing costs anything.
    """
    allowance, job = context.allowance, context.job
    if allowance is None or allowance.limit is None or prices is None:
        return None

    def priced() -> tuple[float, float]:
        strategy = job.perturbation.value
        none = strategy.render(job.prompt, units, np.zeros(len(units), dtype=bool))
        total = [0.0, 0.0]
        for number, question in enumerate(questions):
            for side, prompt in enumerate((none, job.prompt)):
                request = question.request(prompt, job.generation)
                total[side] += question.repeats * prices.of(number, request)
        return total[0], total[1]

    none, whole = await context.in_thread(priced)
    if whole <= 0:
        # A model that costs nothing: any budget in dollars pays for everything.
        return None
    lengths = np.array([len(unit.text) for unit in units], dtype=float)
    left = calls_left(context)
    return Tariff(
        currency=allowance.currency,
        call=none,
        units=frozen_array((whole - none) * lengths / lengths.sum()),
        limit=max(0.0, allowance.limit - allowance.spent),
        max_calls=None if left is None else left // requests_per_coalition(context),
    )


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
