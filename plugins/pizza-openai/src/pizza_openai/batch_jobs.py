# SPDX-License-Identifier: Apache-2.0
"""Batches that are waited for, and whether somebody else in this process waits for one as well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Job:
    """A batch that is waited for.

    Attributes:
        tag: Our own name for it.
        since: When it was planned, seconds since the epoch.
        keys: The requests whose answers are wanted from it.
        batch: Its id; ``None`` while it is not known to exist.
    """

    tag: str
    since: float
    keys: set[str]
    batch: str | None = None


class Jobs:
    """The batches that one call waits for.

    Args:
        waiting: How many calls of this process wait for a tag; shared among them.
    """

    def __init__(self, waiting: Counter[str]) -> None:
        self._waiting = waiting
        self._jobs: dict[str, Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(tuple(self._jobs.values()))

    def add(self, job: Job) -> None:
        """Wait for one more."""
        if job.tag not in self._jobs:
            self._waiting[job.tag] += 1
        self._jobs[job.tag] = job

    def remove(self, job: Job) -> None:
        """Wait for it no longer."""
        if self._jobs.pop(job.tag, None) is not None:
            self._waiting[job.tag] -= 1
            self._waiting += Counter()  # drops what nobody waits for

    def only_ours(self, job: Job) -> bool:
        """Whether no other call of this process waits for it."""
        return self._waiting[job.tag] <= (job.tag in self._jobs)
