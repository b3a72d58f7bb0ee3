# SPDX-License-Identifier: Apache-2.0
"""What ``pizza attribute`` was asked to do, and the call that it amounts to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pizza.attribution import Target
from pizza.cli.connection import Connection
from pizza.cli.sources import Source
from pizza.completion import Generation
from pizza.errors import ConfigError
from pizza.specs import parse_choice

_EVIDENCE = ("auto", "score", "complete")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Connection):
    """The options of ``pizza attribute``, as they were given.

    The attributes are the command's options besides those of every command; `show_all` is
    ``--all``.
    """

    source: Source
    max_tokens: int
    temperature: float
    units: str
    method: str | None
    budget: str | None
    repeats: int | None
    perturbation: str
    metrics: Sequence[str]
    target: str | None
    contrast: str | None
    span: str | None
    evidence: str
    top: int
    show_all: bool

    def call_options(self) -> dict[str, Any]:
        """Keyword arguments of `pizza.Session.attribute`.

        Raises:
            ConfigError: An option's value is not usable.
        """
        if self.evidence not in _EVIDENCE:
            raise ConfigError(
                f"--evidence is one of {', '.join(_EVIDENCE)}, not {self.evidence!r}."
            )
        return {
            "units": parse_choice(self.units),
            "method": None if self.method is None else parse_choice(self.method),
            "budget": self.budget,
            "repeats": self.repeats,
            "perturbation": parse_choice(self.perturbation),
            "metrics": [parse_choice(metric) for metric in self.metrics] or None,
            "target": self._target(),
            "generation": Generation(
                max_tokens=self.max_tokens, temperature=self.temperature, seed=self.seed
            ),
            "evidence": self.evidence,
            "skip_failures": self.skip_failures,
            "seed": self.seed,
        }

    def _target(self) -> Target | None:
        span = None if self.span is None else span_of(self.span)
        if self.contrast is not None and span is not None:
            raise ConfigError("--span limits one output: it cannot go with --contrast.")
        if self.contrast is not None:
            if self.target is None:
                raise ConfigError(
                    "--contrast names the output that was not chosen; name the other one with "
                    "--target."
                )
            return Target.contrast(self.target, self.contrast)
        if self.target is not None:
            return Target.given(self.target, span=span)
        return None if span is None else Target.completion(span=span)


def span_of(text: str) -> tuple[int, int]:
    """``START:END`` to a pair of numbers.

    Raises:
        ConfigError: It is something else.
    """
    start, colon, end = text.partition(":")
    if not (colon and start.isdecimal() and end.isdecimal()):
        raise ConfigError(f"--span takes START:END, for example 0:5, not {text!r}.")
    return int(start), int(end)
