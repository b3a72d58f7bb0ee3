# SPDX-License-Identifier: Apache-2.0
"""When a failed attempt is made again: full jitter, a number of attempts, a deadline.

Source: full jitter as in Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pizza.limits import RetryPolicy


class Backoff:
    """Decides over the attempts of requests; holds no state of any one of them.

    Args:
        policy: The user's policy.
        seed: Seed of the jitter.
    """

    __slots__ = ("_random", "policy")

    def __init__(self, policy: RetryPolicy, seed: int | None = None) -> None:
        self.policy = policy
        self._random = random.Random(seed)  # noqa: S311 - jitter

    def wait(self, attempt: int) -> float:
        """Seconds to wait after attempt number ``attempt`` (the first is 1) failed.

        Uniform between 0 and twice the mean, which doubles with every attempt up to
        ``wait_max_s``: clients that failed together come back apart.
        """
        policy = self.policy
        ceiling = min(policy.wait_max_s, 2 * policy.wait_initial_s * 2.0 ** min(attempt - 1, 60))
        return self._random.uniform(0.0, ceiling)

    def may_try(self, attempts: int, elapsed_s: float, wait_s: float = 0.0) -> bool:
        """Whether another attempt may follow ``attempts`` made in ``elapsed_s`` seconds."""
        return attempts < self.policy.attempts and elapsed_s + wait_s <= self.policy.deadline_s
