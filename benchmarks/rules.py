# SPDX-License-Identifier: Apache-2.0
"""Rate limits as servers enforce them: plain objects that are told the time."""

from __future__ import annotations

import math
from dataclasses import dataclass

RULES = ("none", "full-minute", "second", "bucket-10", "bucket-10-costly", "window")


class Bucket:
    """Refills continuously; a refusal may cost quota as well."""

    def __init__(self, per_minute: float, capacity: float, *, costly: bool = False) -> None:
        self.limit = per_minute
        self.rate = per_minute / 60
        self.capacity = capacity
        self.costly = costly
        self.level = capacity
        self.at: float | None = None

    def refill(self, now: float) -> None:
        """Bring the level up to date."""
        if self.at is not None:
            self.level = min(self.capacity, self.level + (now - self.at) * self.rate)
        self.at = now

    def has(self, cost: float, now: float) -> bool:
        """Whether ``cost`` could be taken now."""
        self.refill(now)
        return self.level >= min(cost, self.capacity) - 1e-9

    def take(self, cost: float, now: float) -> None:
        """Take it."""
        self.refill(now)
        self.level -= cost

    def refuse(self, cost: float) -> None:
        """It was asked for and not given."""
        if self.costly:
            self.level = max(0.0, self.level - min(cost, 1.0))

    def remaining(self, now: float) -> float:
        """What is left, rounded down as servers do."""
        self.refill(now)
        return max(0.0, math.floor(self.level))

    def reset_s(self, now: float) -> float:
        """Seconds until it is full."""
        self.refill(now)
        return (self.capacity - self.level) / self.rate

    def wait_s(self, cost: float, now: float) -> float:
        """Seconds until ``cost`` may be asked for again."""
        self.refill(now)
        return max(0.0, min(cost, self.capacity) - self.level) / self.rate


class Window:
    """So many per window of 60 s; windows follow one another from the first request on."""

    def __init__(self, per_minute: float) -> None:
        self.limit = per_minute
        self.capacity = per_minute
        self.used = 0.0
        self.end: float | None = None

    def roll(self, now: float) -> float:
        """The end of the current window."""
        if self.end is None:
            self.end = now + 60
        while now >= self.end:
            self.used = 0.0
            self.end += 60
        return self.end

    def has(self, cost: float, now: float) -> bool:
        """Whether ``cost`` could be taken now."""
        self.roll(now)
        return self.used + min(cost, self.limit) <= self.limit

    def take(self, cost: float, now: float) -> None:
        """Take it."""
        self.roll(now)
        self.used += cost

    def refuse(self, cost: float) -> None:
        """Refusals cost nothing here."""

    def remaining(self, now: float) -> float:
        """What is left."""
        self.roll(now)
        return max(0.0, self.limit - self.used)

    def reset_s(self, now: float) -> float:
        """Seconds until the window ends."""
        return self.roll(now) - now

    def wait_s(self, cost: float, now: float) -> float:
        """Seconds until ``cost`` may be asked for again."""
        return self.reset_s(now)


@dataclass(frozen=True)
class Verdict:
    """What the rule says to one request, with what it announces."""

    admitted: bool
    limit_requests: float | None
    remaining_requests: float | None
    reset_requests_s: float | None
    limit_tokens: float | None
    remaining_tokens: float | None
    reset_tokens_s: float | None
    retry_after_s: float


class Rule:
    """A limit on requests, one on tokens, or both; a request passes both or neither."""

    def __init__(self, requests: Bucket | Window | None, tokens: Bucket | None = None) -> None:
        self.requests = requests
        self.tokens = tokens

    def ask(self, tokens: float, now: float) -> Verdict:
        """Admit or refuse one request of so many tokens."""
        parts = [(p, c) for p, c in ((self.requests, 1.0), (self.tokens, tokens)) if p is not None]
        admitted = all(part.has(cost, now) for part, cost in parts)
        wait = 0.0
        for part, cost in parts:
            if admitted:
                part.take(cost, now)
            else:
                wait = max(wait, part.wait_s(cost, now))
                part.refuse(cost)
        r, t = self.requests, self.tokens
        return Verdict(
            admitted,
            r.limit if r else None,
            r.remaining(now) if r else None,
            r.reset_s(now) if r else None,
            t.limit if t else None,
            t.remaining(now) if t else None,
            t.reset_s(now) if t else None,
            wait,
        )


def make_rule(name: str, rpm: float | None, tpm: float | None, tpm_burst: float | None) -> Rule:
    """The rule of a server kind."""
    requests: Bucket | Window | None = None
    if rpm is not None and name != "none":
        requests = {
            "full-minute": lambda: Bucket(rpm, rpm),
            "second": lambda: Bucket(rpm, rpm / 60),
            "bucket-10": lambda: Bucket(rpm, 10),
            "bucket-10-costly": lambda: Bucket(rpm, 10, costly=True),
            "window": lambda: Window(rpm),
        }[name]()
    return Rule(requests, Bucket(tpm, tpm_burst or tpm) if tpm else None)


def best_s(name: str, rpm: float, n: int) -> float:
    """Seconds from the first to the last of ``n`` admissions when every one is used at once."""
    if name == "window":
        return 60.0 * ((n - 1) // rpm)
    capacity = {"full-minute": rpm, "second": rpm / 60}.get(name, 10.0)
    return max(0.0, (n - capacity) / (rpm / 60))
