# SPDX-License-Identifier: Apache-2.0
"""Registers the backends ``openai`` and ``openai-batch``; imports neither openai nor aiohttp."""

from __future__ import annotations

from pizza.capability import Capability
from pizza.hookspecs import hookimpl
from pizza.specs import BackendSpec

_OFFERS = frozenset(
    {
        Capability.COMPLETE,
        Capability.LOGPROBS,
        Capability.ALTERNATIVES,
        Capability.SCORE,
        Capability.TOKENIZE,
    }
)


@hookimpl
def pizza_register_backends() -> list[BackendSpec]:
    """``openai``: OpenAI's endpoints, at any base URL; ``openai-batch``: the same in batches."""
    return [
        BackendSpec(
            name="openai",
            target="pizza_openai.backend:OpenAIBackend",
            summary="OpenAI and every OpenAI-compatible server: chat, responses, completions",
            needs=("openai",),
            install="pip install pizza-openai",
            offers=_OFFERS,
            default_model="gpt-4o-mini",
            key_variable="OPENAI_API_KEY",
        ),
        BackendSpec(
            name="openai-batch",
            target="pizza_openai.batch:OpenAIBatchBackend",
            summary="OpenAI's Batch API: half the price, answers within 24 hours",
            needs=("openai",),
            install="pip install pizza-openai",
            offers=_OFFERS,
            # No default model: nobody is to wait for hours because they named none.
            key_variable="OPENAI_API_KEY",
        ),
    ]
