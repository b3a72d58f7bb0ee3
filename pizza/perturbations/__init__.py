# SPDX-License-Identifier: Apache-2.0
"""Built-in perturbation strategies, one idea a file. This module only lists them."""

from __future__ import annotations

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
)
"""All built-in perturbation strategies."""
