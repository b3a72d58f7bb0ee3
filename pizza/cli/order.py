# SPDX-License-Identifier: Apache-2.0
"""What ``pizza attribute`` was asked to do, and the call that it amounts to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pizza.attribution import Target
from pizza.cli.measuring import Measuring
from pizza.cli.sources import Source
from pizza.errors import ConfigError
from pizza.specs import parse_choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Measuring):
    """The options of ``pizza attribute``, as they were given.

    The attributes are the command's options besides those of every command; `show_all` is
    ``--all``.
    """

    source: Source
    method: str | None
    target: str | None
    contrast: str | None
    span: str | None
    top: int
    show_all: bool

    def call_options(self) -> dict[str, Any]:
        """Keyword arguments of `pizza.Session.attribute`.

        Raises:
            ConfigError: An option's value is not usable.
        """
        return {
            **self.measuring_options(),
            "method": None if self.method is None else parse_choice(self.method),
            "target": self._target(),
            "skip_failures": self.skip_failures,
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
