# SPDX-License-Identifier: Apache-2.0
"""The five hooks. Implement the ones you need and name your module as an entry point.

In the distribution's ``pyproject.toml``::

    [project.entry-points."pizza.plugins"]
    my-plugin = "my_package.plugin"

In ``my_package/plugin.py``::

    from pizza.hookspecs import hookimpl
    from pizza.specs import MetricSpec

    @hookimpl
    def pizza_register_metrics():
        return [MetricSpec(name="shouting", target="my_package.shouting:Shouting")]

Hooks are called once while a session opens (or by ``pizza plugins``). They return specs and do no
work: no I/O and no heavy imports. The spec's target is imported when its name is first used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pizza.specs import (
        BackendSpec,
        MethodSpec,
        MetricSpec,
        PerturbationSpec,
        SegmenterSpec,
    )

PROJECT = "pizza"
ENTRY_POINT_GROUP = "pizza.plugins"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def pizza_register_backends() -> Sequence[BackendSpec]:  # type: ignore[empty-body]
    """Model backends; named by the part before the colon of ``"openai:gpt-4o-mini"``."""


@hookspec
def pizza_register_metrics() -> Sequence[MetricSpec]:  # type: ignore[empty-body]
    """Attribution metrics."""


@hookspec
def pizza_register_methods() -> Sequence[MethodSpec]:  # type: ignore[empty-body]
    """Attribution methods."""


@hookspec
def pizza_register_perturbations() -> Sequence[PerturbationSpec]:  # type: ignore[empty-body]
    """Perturbation strategies."""


@hookspec
def pizza_register_segmenters() -> Sequence[SegmenterSpec]:  # type: ignore[empty-body]
    """Segmenters."""
