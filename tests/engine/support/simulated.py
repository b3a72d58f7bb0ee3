# SPDX-License-Identifier: Apache-2.0
"""A model server in memory, on the test's clock: minutes of rate limits in a second."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rules import Rule, Verdict

from pizza.abc import Backend
from pizza.capability import Capability
from pizza.completion import Completion, Generation, Reply, Request, Usage
from pizza.errors import RateLimitedError
from pizza.limits import Price, RateStatus
from pizza.prompt import Message, Prompt
from pizza.testing.clock import ManualClock

GENERATION = Generation(max_tokens=16)


def request(text: str = "hello", **options: object) -> Request:
    return Request(
        prompt=Prompt(messages=(Message(text=text),)),
        generation=GENERATION,
        **options,  # type: ignore[arg-type]
    )


def requests(n: int, length: Callable[[int], int] = lambda i: 40) -> Iterator[Request]:
    return (request(f"{i:06d} ".ljust(length(i), "x")) for i in range(n))


@dataclass
class Simulated(Backend):
    """Answers by a rule, after a latency; ``script`` may answer instead (per attempt)."""

    clock: ManualClock
    rule: Rule = field(default_factory=lambda: Rule(None))
    latency_s: float = 0.3
    jitter_s: float = 0.0
    headers: bool = True
    retry_after: bool = True
    lie: Callable[[RateStatus], RateStatus] = lambda status: status
    script: Callable[[Request, int], BaseException | Reply | None] | None = None
    cost: Price | None = None
    batch_size: int = 1
    name: str = "simulated"
    identity: str = "simulated"
    capabilities: frozenset[Capability] = frozenset({Capability.COMPLETE})

    def __post_init__(self) -> None:
        self.random = random.Random(0)
        self.arrivals: list[tuple[float, str]] = []
        self.admitted: list[float] = []
        self.tokens = 0.0
        self.refused = 0
        self.in_flight = self.most_in_flight = 0
        self.cancelled = 0

    @property
    def price(self) -> Price | None:
        return self.cost

    def count_tokens(self, request: Request) -> int:
        return len(request.prompt.text) // 4

    @property
    def asked(self) -> list[str]:
        """The prompts that arrived, in order."""
        return [text for _, text in self.arrivals]

    async def answer(self, request: Request) -> Reply:
        await self.clock.sleep(self.random.uniform(0, self.jitter_s))
        now = self.clock.now()
        self.arrivals.append((now, request.prompt.text))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(request, now)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1

    async def _answer(self, request: Request, now: float) -> Reply:
        verdict = self.rule.ask(self.count_tokens(request) + request.generation.max_tokens, now)
        status = self.lie(_status(verdict)) if self.headers else None
        if not verdict.admitted:
            self.refused += 1
            await self.clock.sleep(0.02)
            raise RateLimitedError(
                "rate limit",
                retry_after_s=verdict.retry_after_s if self.retry_after else None,
                rate=status,
            )
        self.admitted.append(now)
        self.tokens += self.count_tokens(request) + request.generation.max_tokens
        await self.clock.sleep(self.latency_s)
        if self.script is not None:
            scripted = self.script(request, len(self.arrivals))
            if isinstance(scripted, BaseException):
                raise scripted
            if scripted is not None:
                return scripted
        usage = Usage(prompt_tokens=self.count_tokens(request), completion_tokens=16)
        text = request.prompt.text
        return Reply(completion=Completion(text=f"answer to {text}", usage=usage), rate=status)


def _status(verdict: Verdict) -> RateStatus:
    return RateStatus(
        limit_requests=verdict.limit_requests,
        remaining_requests=verdict.remaining_requests,
        reset_requests_s=verdict.reset_requests_s,
        limit_tokens=verdict.limit_tokens,
        remaining_tokens=verdict.remaining_tokens,
        reset_tokens_s=verdict.reset_tokens_s,
    )
