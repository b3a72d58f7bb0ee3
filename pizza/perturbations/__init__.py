# SPDX-License-Identifier: Apache-2.0
"""Built-in perturbation strategies, one idea a file. This module only lists them."""

from __future__ import annotations

from pizza.capability import Capability
from pizza.specs import PerturbationSpec

_HERE = "pizza.perturbations"

SPECS: tuple[PerturbationSpec, ...] = (
    PerturbationSpec(
        name="delete",
        target=f"{_HERE}.delete:Delete",
        summary="The unit goes, and the white space before it.",
    ),
    PerturbationSpec(
        name="fixed",
        target=f"{_HERE}.fixed:Fixed",
        summary="A fixed text stands in: text='...' (the default), text='' for nothing.",
    ),
    PerturbationSpec(
        name="mask-token",
        target=f"{_HERE}.mask:MaskToken",
        summary="A mask per token (per=token, needs a tokenizer) or per unit (per=unit).",
    ),
    PerturbationSpec(
        name="random-token",
        target=f"{_HERE}.random_token:RandomToken",
        summary="Random ordinary tokens, as many as the unit has; seeded.",
    ),
    PerturbationSpec(
        name="nth-nearest",
        target=f"{_HERE}.nearest:NthNearest",
        summary="The n-th nearest token by embedding: n=1, 2, ...; n=-1 is the farthest.",
        requires=frozenset({Capability.EMBEDDINGS}),
    ),
    PerturbationSpec(
        name="baseline",
        target=f"{_HERE}.baseline:Baseline",
        summary="Other values for a template's slots: values={slot: text, list or function}.",
    ),
)
"""All built-in perturbation strategies."""
