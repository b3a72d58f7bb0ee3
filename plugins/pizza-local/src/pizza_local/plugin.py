# SPDX-License-Identifier: Apache-2.0
"""Registers the backend ``local`` and the methods that look inside its models."""

from __future__ import annotations

from collections.abc import Sequence

from pizza.capability import Capability
from pizza.hookspecs import hookimpl
from pizza.specs import BackendSpec, MethodSpec
from pizza_local.methods import SPECS

_NEEDS = ("torch", "transformers")
_INSTALL = "pip install pizza-local"


@hookimpl
def pizza_register_backends() -> Sequence[BackendSpec]:
    """Torch models of this process; torch is imported when one is opened."""
    return [
        BackendSpec(
            name="local",
            target="pizza_local.opening:open_backend",
            summary="a torch model in this process, from a folder or the Hugging Face hub",
            offers=frozenset(Capability),
            needs=_NEEDS,
            install=_INSTALL,
        )
    ]


@hookimpl
def pizza_register_methods() -> Sequence[MethodSpec]:
    """Gradients, attention and the like."""
    return [
        MethodSpec(
            name=name,
            target=target,
            summary=summary,
            requires=frozenset({Capability.GRADIENTS}),
            needs=_NEEDS,
            install=_INSTALL,
        )
        for name, target, summary in SPECS
    ]
