# SPDX-License-Identifier: Apache-2.0
"""The parts that ship with pizza, registered through the same hooks as a stranger's."""

from __future__ import annotations

from collections.abc import Sequence

from pizza.hookspecs import hookimpl
from pizza.methods import SPECS as METHODS
from pizza.metrics import SPECS as METRICS
from pizza.perturbations import SPECS as PERTURBATIONS
from pizza.segmenters import SPECS as SEGMENTERS
from pizza.specs import MethodSpec, MetricSpec, PerturbationSpec, SegmenterSpec


@hookimpl
def pizza_register_metrics() -> Sequence[MetricSpec]:
    """The built-in metrics."""
    return METRICS


@hookimpl
def pizza_register_methods() -> Sequence[MethodSpec]:
    """The built-in methods."""
    return METHODS


@hookimpl
def pizza_register_perturbations() -> Sequence[PerturbationSpec]:
    """The built-in perturbation strategies."""
    return PERTURBATIONS


@hookimpl
def pizza_register_segmenters() -> Sequence[SegmenterSpec]:
    """The built-in segmenters."""
    return SEGMENTERS
