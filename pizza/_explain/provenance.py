# SPDX-License-Identifier: Apache-2.0
"""Everything that is needed to make an attribution again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from pizza import __version__
from pizza._engine.allowance import Allowance
from pizza._explain.job import Context
from pizza._explain.replay import recorded
from pizza.abc import Game, InternalsMethod


def provenance(
    context: Context, details: Mapping[str, Any], started: float, game: Game | None = None
) -> dict[str, Any]:
    """Plain JSON values.

    Args:
        context: The attribution's context.
        details: What the method wants to be known.
        started: Wall-clock time, seconds since the epoch.
        game: What the method knew, where it chose coalitions.
    """
    job = context.job
    inside = isinstance(job.method.value, InternalsMethod)
    generation = job.generation
    stamp = dt.datetime.fromtimestamp(started, tz=dt.UTC)
    work = None if context.reading is None else context.reading.spent()
    return {
        "pizza_version": __version__,
        "created_at": stamp.isoformat(timespec="seconds"),
        "backend": context.backend.name,
        "backend_identity": context.backend.identity,
        "backend_plugin": dict(
            zip(("plugin", "distribution", "version"), context.origin, strict=True)
        ),
        "method": {**job.method.to_dict(), "details": dict(details)},
        # A method that looks inside the model perturbs nothing and compares nothing.
        "perturbation": None if inside else job.perturbation.to_dict(),
        "segmenter": job.units.to_dict(),
        "metrics": [part.to_dict() for part in context.metrics],
        "evidence": "internals" if inside else "score" if context.scored else "complete",
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
        "repeats": job.repeats,
        **({"budget": _budget(context.allowance)} if context.allowance else {}),
        **({"game": recorded(game)} if game else {}),
        **({"work": work} if work else {}),
    }


def _budget(allowance: Allowance) -> dict[str, Any]:
    """What there was to spend and what was used, as if nothing had come from the cache."""
    budget, usage, price = allowance.budget, allowance.usage, allowance.price
    return {
        "max_calls": budget.max_calls,
        "max_tokens": budget.max_tokens,
        "max_cost": budget.max_cost,
        "calls": allowance.calls,
        "tokens": usage.total_tokens,
        "cost": None if price is None else price.cost(usage.prompt_tokens, usage.completion_tokens),
        "unaffordable": allowance.refused,
    }
