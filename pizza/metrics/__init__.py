# SPDX-License-Identifier: Apache-2.0
"""Built-in metrics, one idea a file. This module only lists them and imports none."""

from __future__ import annotations

from pizza.capability import Capability
from pizza.specs import MetricSpec

_HERE = "pizza.metrics"

SPECS: tuple[MetricSpec, ...] = (
    MetricSpec(
        name="logprob-diff",
        target=f"{_HERE}.probability:LogprobDiff",
        summary="Fall of the output's log-probability, nats; alignment=aligned or "
        "location-invariant.",
        requires=frozenset({Capability.LOGPROBS}),
        evidence="tokens",
    ),
    MetricSpec(
        name="prob-diff",
        target=f"{_HERE}.probability:ProbDiff",
        summary="Fall of the output's probability; alignment=aligned or location-invariant.",
        requires=frozenset({Capability.LOGPROBS}),
        evidence="tokens",
    ),
    MetricSpec(
        name="exact-match",
        target=f"{_HERE}.exact:ExactMatch",
        summary="1 when the model writes another text, 0 when it writes the same.",
    ),
)
"""All built-in metrics."""
