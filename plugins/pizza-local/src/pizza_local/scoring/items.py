# SPDX-License-Identifier: Apache-2.0
"""What is scored, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Item:
    """One sequence to score: how likely is the target after the prompt?

    Args:
        prompt: Token ids, at least one: the first target token needs something to follow.
        target: Token ids, at least one.

    Raises:
        ValueError: One of them is empty.
    """

    prompt: tuple[int, ...]
    target: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, tokens in (("prompt", self.prompt), ("target", self.target)):
            if not tokens:
                raise ValueError(
                    f"an item to score has a {name} of 0 tokens; it needs at least 1. A model that "
                    f"has a beginning-of-sequence token can score after that one."
                )

    @property
    def sequence(self) -> tuple[int, ...]:
        """What goes through the network: nothing is predicted from the last target token."""
        return self.prompt + self.target[:-1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """How likely each target token was, given the prompt and the target tokens before it.

    Args:
        logprobs: ``log p(target_t | prompt, target_<t)`` in nats, shape ``(T,)``.
        top_tokens: The ids of the most likely tokens at each place, best first, ``(T, top)``.
        top_logprobs: Their log-probabilities in nats, ``(T, top)``.
    """

    logprobs: NDArray[np.float64]
    top_tokens: NDArray[np.int64]
    top_logprobs: NDArray[np.float64]
