# SPDX-License-Identifier: Apache-2.0
"""What tests of the command line share."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from typing import Any

PROMPT = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)


class Input(io.TextIOWrapper):
    """Standard input with given bytes, a terminal or not."""

    def __init__(self, data: bytes = b"", *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._terminal = terminal

    def isatty(self) -> bool:
        """Whether somebody types."""
        return self._terminal


def flat(text: str) -> str:
    """Without line ends and boxes, for messages that the terminal's width has broken."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", text)
