# SPDX-License-Identifier: Apache-2.0
"""How an attribution is shown. Light: a command line imports it before it knows what to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How an attribution is shown.

    Attributes:
        color: Whether the terminal shows colours; without, scores are written beside the words.
        unicode: Whether it shows more than ASCII.
        width: Columns of the terminal.
        top: Rows of the table of units.
        everything: Show long prompts whole and all units in the table.
    """

    color: bool = True
    unicode: bool = True
    width: int = 80
    top: int = 8
    everything: bool = False
