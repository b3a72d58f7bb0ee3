# SPDX-License-Identifier: Apache-2.0
"""How a server's batches behave: their limits, their pace, and what goes wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

HANGS = ("upload", "create", "retrieve", "content")
"""Calls that can be told to hang: they take effect, and their answer never comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """What a server does with files and batches.

    Attributes:
        delay_s: Seconds for which a batch stays ``in_progress`` before its lines are run.
        expire: Lines after which a batch expires; the rest is never run. ``None`` = none expires.
        malformed: Answered lines of an output file that are cut in half.
        first: How many batches, from the first one on, expire or have malformed lines.
        fail: Share of the lines that answer 500. Another attempt at a line is another draw.
        hang: Which of `HANGS` hang, the first time that each is called.
        max_requests: Most lines of a batch.
        max_bytes: Largest input file, bytes.
        max_queued_tokens: Most tokens (bytes / 4) in batches that are not finished, or ``None``. A
            batch beyond it fails with OpenAI's ``token_limit_exceeded``.
        seed: Chooses which lines fail.
    """

    delay_s: float = 0.0
    expire: int | None = None
    malformed: int = 0
    first: int = 1
    fail: float = 0.0
    hang: tuple[str, ...] = ()
    max_requests: int = 50_000
    max_bytes: int = 200_000_000
    max_queued_tokens: int | None = None
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> BatchOptions:
        """Read ``"delay=0.5,expire=3,malformed=1,first=2,fail=0.1,hang=create+content,seed=7"``.

        Raises:
            ValueError: The text is not of that form; the message says what is.
        """
        values: dict[str, Any] = {}
        for item in filter(None, (piece.strip() for piece in text.split(","))):
            name, equals, value = item.partition("=")
            if not equals or name not in _OPTIONS:
                raise ValueError(
                    f"{item!r} is not an option of batches: give NAME=VALUE with a NAME of "
                    f"{', '.join(_OPTIONS)}."
                )
            field, read = _OPTIONS[name]
            try:
                values[field] = read(value)
            except ValueError as error:
                raise ValueError(f"{value!r} in {item!r} is {error}.") from None
        return cls(**values)


def _count(text: str) -> int:
    if not text.isdigit():
        raise ValueError("not a whole number of at least 0")
    return int(text)


def _amount(text: str, most: float = float("inf")) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most or value == float("inf"):
        raise ValueError(f"not a number from 0 to {most:g}")
    return value


def _share(text: str) -> float:
    return _amount(text, 1.0)


def _hangs(text: str) -> tuple[str, ...]:
    names = tuple(text.split("+"))
    if any(name not in HANGS for name in names):
        raise ValueError(f"not some of {', '.join(HANGS)}, joined by +")
    return names


_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "delay": ("delay_s", _amount),
    "expire": ("expire", _count),
    "malformed": ("malformed", _count),
    "first": ("first", _count),
    "fail": ("fail", _share),
    "hang": ("hang", _hangs),
    "max-requests": ("max_requests", _count),
    "max-bytes": ("max_bytes", _count),
    "max-queued-tokens": ("max_queued_tokens", _count),
    "seed": ("seed", _count),
}
