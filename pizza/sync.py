# SPDX-License-Identifier: Apache-2.0
"""The blocking façade, for scripts and notebooks without an event loop of their own.

Functions take the options of the `Session` method of their name, ``budget`` among them, and those
of `Session` itself. The session's own budget, a hard cap over all that it does, is
``session_budget``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pizza.attribution import Attribution
from pizza.errors import ConfigError
from pizza.prompt import PromptLike
from pizza.session import Outcome, Session

if TYPE_CHECKING:
    from pizza.evaluation.result import Evaluation

_SESSION_OPTIONS = frozenset(
    (
        "limits",
        "retry",
        "session_budget",
        "cache",
        "base_url",
        "api_key",
        "backend_options",
        "plugins",
        "discover",
        "clock",
    )
)


def attribute(prompt: PromptLike, *, model: Any = "embedded", **options: Any) -> Attribution:
    """Explain one prompt and wait for the result.

    Args:
        prompt: As for `Session.attribute`.
        model: As for `Session`.
        **options: Options of `Session` and of `Session.attribute`.

    Raises:
        ConfigError: Called from inside a running event loop.
    """
    _refuse_running_loop()
    for_session, rest = _divided(options)

    async def run() -> Attribution:
        async with Session(model, **for_session) as session:
            return await session.attribute(prompt, **rest)

    return asyncio.run(run())


def attribute_many(
    prompts: Iterable[PromptLike], *, model: Any = "embedded", **options: Any
) -> list[Outcome]:
    """Explain many prompts and wait for all outcomes, in the prompts' order.

    Args:
        prompts: As for `Session.attribute_many`.
        model: As for `Session`.
        **options: Options of `Session` and of `Session.attribute_many`.
    """
    _refuse_running_loop()
    for_session, rest = _divided(options)

    async def run() -> list[Outcome]:
        async with (
            Session(model, **for_session) as session,
            session.attribute_many(prompts, **rest) as outcomes,
        ):
            return sorted([o async for o in outcomes], key=lambda o: o.index)

    return asyncio.run(run())


def evaluate(attribution: Attribution, *, model: Any = None, **options: Any) -> Evaluation:
    """Measure how faithful an attribution is, and wait for the figures.

    Args:
        attribution: As for `Session.evaluate`.
        model: As for `Session`; by default the model that the attribution was made with.
        **options: Options of `Session` and of `Session.evaluate`.

    Raises:
        ConfigError: Called from inside a running event loop.
    """
    _refuse_running_loop()
    if model is None:
        model = attribution.provenance.get("backend", "embedded")
    for_session, rest = _divided(options)

    async def run() -> Evaluation:
        async with Session(model, **for_session) as session:
            return await session.evaluate(attribution, **rest)

    return asyncio.run(run())


def _divided(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    mine = {k: v for k, v in options.items() if k in _SESSION_OPTIONS}
    if "session_budget" in mine:
        mine["budget"] = mine.pop("session_budget")
    return mine, {k: v for k, v in options.items() if k not in _SESSION_OPTIONS}


def _refuse_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigError(
        "pizza.sync cannot be used inside a running event loop (a notebook or an async function "
        "has one): it would block everything else in it. Use 'async with pizza.Session(...) as "
        "session: await session.attribute(...)' there."
    )
