# SPDX-License-Identifier: Apache-2.0
"""What is measured and how, as every command is told that explains prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pizza.cli.connection import Connection
from pizza.completion import Generation
from pizza.errors import ConfigError
from pizza.specs import parse_choice

_EVIDENCE = ("auto", "score", "complete")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring(Connection):
    """Options as they were given, besides those of every command."""

    max_tokens: int
    temperature: float
    units: str
    budget: str | None
    repeats: int | None
    perturbation: str
    metrics: Sequence[str]
    evidence: str

    def measuring_options(self) -> dict[str, Any]:
        """Keyword arguments of `pizza.Session.attribute`, method and target excepted.

        Raises:
            ConfigError: An option's value is not usable.
        """
        if self.evidence not in _EVIDENCE:
            raise ConfigError(
                f"--evidence is one of {', '.join(_EVIDENCE)}, not {self.evidence!r}."
            )
        return {
            "units": parse_choice(self.units),
            "budget": self.budget,
            "repeats": self.repeats,
            "perturbation": parse_choice(self.perturbation),
            "metrics": [parse_choice(metric) for metric in self.metrics] or None,
            "generation": Generation(
                max_tokens=self.max_tokens, temperature=self.temperature, seed=self.seed
            ),
            "evidence": self.evidence,
            "seed": self.seed,
        }
