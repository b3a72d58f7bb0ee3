# SPDX-License-Identifier: Apache-2.0
"""Matches of a regular expression."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pizza.abc import Resources, Segmenter
from pizza.errors import ConfigError
from pizza.prompt import Prompt, Unit
from pizza.segmenters._cutting import units_of
from pizza.segmenters._rest import Rest, check_rest, with_rest


class RegexSegmenter(Segmenter):
    r"""One unit per match, without the white space at its ends; fixed parts are cut away.

    Args:
        pattern: In the syntax of Python's `re`, e.g. ``r"\d+"`` or ``r"[^,;]+"``.
        rest: ``"fixed"`` (the default): what does not match is never perturbed. ``"units"``: what
            stands between the matches becomes units too.
    """

    def __init__(self, pattern: str, rest: Rest = "fixed") -> None:
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                f"the pattern {pattern!r} is not a regular expression: {error}."
            ) from error
        self._rest = check_rest(rest)

    def segment(self, prompt: Prompt, resources: Resources) -> Sequence[Unit]:
        """The matches, in order.

        Raises:
            ConfigError: Nothing that may be perturbed matches.
        """
        units = units_of(
            prompt,
            lambda text: [match.span() for match in self._pattern.finditer(text) if match.group()],
            who=f"regex:pattern={self._pattern.pattern}",
            whole_graphemes=False,
        )
        return with_rest(prompt, units, self._rest)
