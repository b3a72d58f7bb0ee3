# SPDX-License-Identifier: Apache-2.0
"""A fixed text in the place of every absent unit."""

from __future__ import annotations

from collections.abc import Sequence

from pizza.abc import Resources
from pizza.errors import ConfigError
from pizza.perturbations._replacement import ReplacementStrategy
from pizza.prompt import Prompt, Unit


class Fixed(ReplacementStrategy):
    """The same text stands in for every absent unit; the white space around it stays.

    Args:
        text: Any text, ``""`` included (then two runs of white space meet; `Delete` tidies up).
    """

    def __init__(self, text: str = "...") -> None:
        if not isinstance(text, str):
            raise ConfigError(f"the text of 'fixed' is a str, not {text!r}.")
        self._text = text

    def replacements(
        self, prompt: Prompt, units: Sequence[Unit], resources: Resources
    ) -> Sequence[str]:
        """The text, once per unit."""
        return [self._text] * len(units)
