# SPDX-License-Identifier: Apache-2.0
"""The prompts of the bulk benchmark, without anything that has to be installed."""

from __future__ import annotations

from collections.abc import Iterator

WORDS = 39
REQUESTS = WORDS + 1
"""Requests of leave-one-out: the prompt, and the prompt without each of its words."""


def prompt(number: int, words: int = WORDS) -> str:
    """A prompt of so many words that no other has one of."""
    return " ".join(f"w{number}x{place}" for place in range(words))


def texts(number: int) -> Iterator[str]:
    """The texts of its requests, for clients that only send."""
    words = prompt(number).split()
    yield " ".join(words)
    for place in range(WORDS):
        yield " ".join(words[:place] + words[place + 1 :])
