# SPDX-License-Identifier: Apache-2.0
"""Registers the backend ``openai``; imports neither openai nor aiohttp."""

from __future__ import annotations

from pizza.capability import Capability
from pizza.hookspecs import hookimpl
from pizza.specs import BackendSpec


@hookimpl
def pizza_register_backends() -> list[BackendSpec]:
    """The backend ``openai``: OpenAI's endpoints, at any base URL."""
    return [
        BackendSpec(
            name="openai",
            target="pizza_openai.backend:OpenAIBackend",
            summary="OpenAI and every OpenAI-compatible server: chat, responses, completions",
            needs=("openai",),
            install="pip install pizza-openai",
            offers=frozenset(
                {
                    Capability.COMPLETE,
                    Capability.LOGPROBS,
                    Capability.ALTERNATIVES,
                    Capability.SCORE,
                    Capability.TOKENIZE,
                }
            ),
            default_model="gpt-4o-mini",
            key_variable="OPENAI_API_KEY",
        )
    ]
