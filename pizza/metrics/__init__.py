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
        name="logit-diff",
        target=f"{_HERE}.probability:LogitDiff",
        summary="Fall of the output's log-odds, nats; alignment=aligned or location-invariant.",
        requires=frozenset({Capability.LOGPROBS}),
        evidence="tokens",
    ),
    MetricSpec(
        name="token-displacement",
        target=f"{_HERE}.displacement:TokenDisplacement",
        summary="Places that the original tokens lost among the alternatives.",
        requires=frozenset({Capability.ALTERNATIVES}),
        evidence="tokens",
    ),
    MetricSpec(
        name="kl-divergence",
        target=f"{_HERE}.divergence:KLDivergence",
        summary="Kullback-Leibler divergence of the next-token distributions, nats.",
        requires=frozenset({Capability.ALTERNATIVES}),
        evidence="tokens",
    ),
    MetricSpec(
        name="js-divergence",
        target=f"{_HERE}.divergence:JSDivergence",
        summary="Jensen-Shannon divergence of the next-token distributions, nats (at most ln 2).",
        requires=frozenset({Capability.ALTERNATIVES}),
        evidence="tokens",
    ),
    MetricSpec(
        name="cosine",
        target=f"{_HERE}.cosine:Cosine",
        summary="1 - cosine of the outputs' token embeddings, by position and of their means.",
        requires=frozenset({Capability.EMBEDDINGS}),
    ),
    MetricSpec(
        name="exact-match",
        target=f"{_HERE}.exact:ExactMatch",
        summary="1 when the model writes another text, 0 when it writes the same.",
    ),
    MetricSpec(
        name="edit-distance",
        target=f"{_HERE}.edit:EditDistance",
        summary="Share of characters to edit (Levenshtein), and which output tokens are kept.",
    ),
    MetricSpec(
        name="rouge-l",
        target=f"{_HERE}.rouge:RougeL",
        summary="1 - ROUGE-L F1: words in the same order.",
    ),
    MetricSpec(
        name="jaccard",
        target=f"{_HERE}.jaccard:Jaccard",
        summary="1 - Jaccard similarity of the sets of words.",
    ),
)
"""All built-in metrics."""
