# SPDX-License-Identifier: Apache-2.0
"""What the entry point names. Registers and does nothing else: numpy is imported on first use."""

from __future__ import annotations

from pizza.capability import Capability
from pizza.hookspecs import hookimpl
from pizza.specs import BackendSpec, MetricSpec, PerturbationSpec


@hookimpl
def pizza_register_backends() -> list[BackendSpec]:
    """The backend ``triage``."""
    return [
        BackendSpec(
            name="triage",
            target="pizza_triage.backend:Triage",
            summary="sorts support tickets by rules",
            offers=frozenset({Capability.COMPLETE, Capability.LOGPROBS, Capability.ALTERNATIVES}),
            default_model="rules",
        )
    ]


@hookimpl
def pizza_register_metrics() -> list[MetricSpec]:
    """The metric ``margin``."""
    return [
        MetricSpec(
            name="margin",
            target="pizza_triage.margin:Margin",
            summary="lead over the runner-up that the output loses, nats",
            requires=frozenset({Capability.LOGPROBS, Capability.ALTERNATIVES}),
            evidence="tokens",
        )
    ]


@hookimpl
def pizza_register_perturbations() -> list[PerturbationSpec]:
    """The perturbation strategy ``redact``."""
    return [
        PerturbationSpec(
            name="redact",
            target="pizza_triage.redact:Redact",
            summary="blacks units out and keeps their length; mark=█",
        )
    ]
