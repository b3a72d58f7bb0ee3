# SPDX-License-Identifier: Apache-2.0
"""Registers the embedded model as the backend ``embedded``."""

from __future__ import annotations

from collections.abc import Sequence

from pizza.capability import Capability
from pizza.hookspecs import hookimpl
from pizza.specs import BackendSpec


@hookimpl
def pizza_register_backends() -> Sequence[BackendSpec]:
    """The model that ships inside this distribution: no key, no download, no torch."""
    return [
        BackendSpec(
            name="embedded",
            target="pizza_embedded.backend:open_backend",
            summary="a small language model inside the package: no key, no download, no torch",
            offers=frozenset(
                {
                    Capability.COMPLETE,
                    Capability.LOGPROBS,
                    Capability.ALTERNATIVES,
                    Capability.SCORE,
                    Capability.TOKENIZE,
                    Capability.EMBEDDINGS,
                }
            ),
            default_model="default",
        )
    ]
