# SPDX-License-Identifier: Apache-2.0
"""When a failed attempt is made again: full jitter, a number of attempts, a deadline.

tenacity says how long to wait and how often to try. Its loop is not used: it would sleep inside of
the caller's slot and by a clock that tests cannot drive, and each task would back off alone.

Source: full jitter as in Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tenacity

if TYPE_CHECKING:
    from pizza.limits import RetryPolicy


class Backoff:
    """Decides over the attempts of requests; holds no state of any one of them.

    Args:
        policy: The user's policy.
    """

    __slots__ = ("_rules", "policy")

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self._rules = tenacity.AsyncRetrying(
            wait=tenacity.wait_random_exponential(
                multiplier=2 * policy.wait_initial_s, max=policy.wait_max_s
            ),
            stop=tenacity.stop_after_attempt(policy.attempts),
        )

    def wait(self, attempt: int) -> float:
        """Seconds to wait after attempt number ``attempt`` (the first is 1) failed.

        Uniform between 0 and twice the mean, which doubles with every attempt up to
        ``wait_max_s``: clients that failed together come back apart.
        """
        return float(self._rules.wait(self._state(attempt)))

    def may_try(self, attempts: int, elapsed_s: float, wait_s: float = 0.0) -> bool:
        """Whether another attempt may follow ``attempts`` made in ``elapsed_s`` seconds."""
        in_time = elapsed_s + wait_s <= self.policy.deadline_s
        return in_time and not self._rules.stop(self._state(attempts))

    def _state(self, attempt: int) -> tenacity.RetryCallState:
        state = tenacity.RetryCallState(self._rules, None, (), {})
        state.attempt_number = attempt
        return state
