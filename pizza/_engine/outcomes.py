# SPDX-License-Identifier: Apache-2.0
"""What becomes of requests: `Answer`, `Outcome`, `SchedulerStatistics`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from pizza.completion import Completion, Usage
from pizza.errors import PizzaError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A completion and how it was come by.

    Attributes:
        completion: What the model wrote.
        cached: It cost nothing: it came from the cache, or with an identical request.
        attempts: Attempts that were made for it; 0 when it cost nothing.
        cost: US dollars, or ``None`` when the backend's price is not known.
        packed: The completion as the cache holds it (`codec`), or ``None`` without one.
    """

    completion: Completion
    cached: bool
    attempts: int
    cost: float | None
    packed: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[T]):
    """What became of one item: an answer, or an error as a value.

    Attributes:
        item: The item.
        index: Its position in what was given, from 0.
        answer: The answer, or ``None``.
        error: Why there is none, or ``None``.
    """

    item: T
    index: int
    answer: Answer | None = None
    error: PizzaError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerStatistics:
    """What happened since the scheduler was opened.

    Attributes:
        calls: Attempts sent to the backend, retries and refusals included.
        cache_hits: Answers from the cache.
        shared: Answers that came with an identical request under way.
        retries: Attempts made again after a failure.
        rate_limited: Attempts that were refused for their rate (429).
        failures: Requests that ended in an error.
        usage: Tokens that the answers cost.
        cost: US dollars that they cost; 0 when the price is not known.
        in_flight: Attempts under way now.
        queued: Requests that wait for the limiter now.
    """

    calls: int
    cache_hits: int
    shared: int
    retries: int
    rate_limited: int
    failures: int
    usage: Usage
    cost: float
    in_flight: int
    queued: int
