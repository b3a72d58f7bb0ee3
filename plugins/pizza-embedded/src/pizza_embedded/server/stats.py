# SPDX-License-Identifier: Apache-2.0
"""What a server has seen: counters for tests and benchmarks."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from typing import Any


class Stats:
    """Counters of one server. Bodies are known by their hash.

    Attributes:
        requests: Requests per endpoint (path).
        statuses: Answers per HTTP status; dropped connections count as status 0.
        faults: Faults per name.
        rate_limited: Refusals per limit, ``"requests"`` and ``"tokens"``.
        in_flight: Requests that are being answered now.
        max_in_flight: The most there ever were.
        model_jobs: Jobs that the model computed (answers from the cache cost none).
        prompt_tokens, completion_tokens: Tokens of complete answers.
        duplicates: Requests whose body had been answered completely before: paid for twice.
        batch_calls: Calls of the Files and Batches APIs, by name.
        batches: Batches that have ended, per status.
        batch_lines: Requests of batches that were run; they count as requests to their endpoint
            in nothing else but ``admitted``, ``duplicates`` and tokens.
        hung: Calls whose answer never came, by name.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start from zero.

        Args:
            clock: Monotonic seconds.
        """
        self._clock = clock
        self._start = clock()
        self.requests: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self.rate_limited: Counter[str] = Counter()
        self.in_flight = 0
        self.max_in_flight = 0
        self.model_jobs = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.duplicates = 0
        self.batch_calls: Counter[str] = Counter()
        self.batches: Counter[str] = Counter()
        self.batch_lines = 0
        self.hung: Counter[str] = Counter()
        self._lines: Counter[bytes] = Counter()
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._attempts: Counter[str] = Counter()
        self._answered: set[str] = set()

    def arrived(self, key: str) -> None:
        """A request for a completion came in."""
        if key in self._answered:
            self.duplicates += 1

    def attempt(self, key: str) -> int:
        """A request was let in; the number of the attempt at its body, from 0.

        Refusals of a rate limit are no attempts.
        """
        now = self._clock() - self._start
        self._first_s = now if self._first_s is None else self._first_s
        self._last_s = now
        self._attempts[key] += 1
        return self._attempts[key] - 1

    def batch_attempt(self, body: bytes) -> int:
        """A line of a batch is run; the number of the attempt at its body, from 0."""
        key = hashlib.blake2b(body, digest_size=16).digest()
        self._lines[key] += 1
        return self._lines[key] - 1

    def answered(self, key: str, prompt_tokens: int, completion_tokens: int) -> None:
        """A body was answered completely."""
        self._answered.add(key)
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def to_dict(self) -> dict[str, Any]:
        """The counters as JSON values.

        ``admitted`` are attempts that no limit refused, and ``first_admitted_s`` and
        ``last_admitted_s`` when the first and last of them came in, seconds after the start.
        ``cpu_s`` is the processor time of the server's whole process so far, seconds.
        """
        return {
            "requests": dict(self.requests),
            "statuses": {str(status): n for status, n in sorted(self.statuses.items())},
            "faults": dict(self.faults),
            "rate_limited": dict(self.rate_limited),
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "model_jobs": self.model_jobs,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "admitted": self._attempts.total(),
            "first_admitted_s": self._first_s,
            "last_admitted_s": self._last_s,
            "distinct_bodies": len(self._attempts),
            "answered_bodies": len(self._answered),
            "duplicates": self.duplicates,
            "batch_calls": dict(self.batch_calls),
            "batches": dict(self.batches),
            "batch_lines": self.batch_lines,
            "hung": dict(self.hung),
            "cpu_s": time.process_time(),
        }
