# SPDX-License-Identifier: Apache-2.0
"""How fast, how often and how much: small frozen values that the scheduler obeys."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from pizza.errors import ConfigError

_AMOUNT = re.compile(
    r"\s*(?P<before>\$)?\s*(?P<number>[\d,]*\.?\d+)\s*(?P<scale>[km])?\s*(?P<after>[a-z$]+)?\s*",
    re.IGNORECASE,
)
_SCALES = {"": 1, "k": 1_000, "m": 1_000_000}
_UNITS = {
    **dict.fromkeys(("call", "calls", "request", "requests"), "max_calls"),
    **dict.fromkeys(("token", "tokens"), "max_tokens"),
    **dict.fromkeys(("$", "usd", "dollar", "dollars"), "max_cost"),
}

DEFAULT_CONCURRENCY = 50
"""Requests in flight at the same time when nobody says otherwise."""


def _positive(name: str, value: float | None) -> None:
    if value is not None and not value > 0:
        raise ConfigError(f"{name} must be greater than 0 or None, not {value!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Rates and concurrency that requests respect.

    A limit that is ``None`` is learned from what the server announces (``x-ratelimit-*``).

    Attributes:
        requests_per_minute: Attempts (retries included) per minute, as a sustained rate. A burst
            comes on top of it: in any ``t`` seconds at most ``rate * (t + burst)`` are started.
        tokens_per_minute: Prompt plus completion tokens of those attempts, likewise.
        max_concurrency: Requests in flight at the same time. ``None``: 50, or as many as a model
            in this process answers together.
        burst_s: How many seconds' worth of a rate may be sent at once after a pause. Small values
            suit servers that enforce per-second quotas. ``None``: one second's worth, and as much
            as the server announces that it has left, up to a minute's worth.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_concurrency: int | None = None
    burst_s: float | None = None

    def __post_init__(self) -> None:
        _positive("requests_per_minute", self.requests_per_minute)
        _positive("tokens_per_minute", self.tokens_per_minute)
        _positive("max_concurrency", self.max_concurrency)
        _positive("burst_s", self.burst_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to try a failed attempt again, and for how long.

    Attributes:
        attempts: Attempts in all, the first included. A 429 that the whole limiter waits for
            does not use one up.
        deadline_s: Seconds after the first attempt from which no further one starts.
        wait_initial_s: Mean of the first back-off; doubles with every attempt, full jitter.
        wait_max_s: Longest back-off.
        attempt_timeout_s: Seconds after which an attempt counts as timed out.
    """

    attempts: int = 6
    deadline_s: float = 600.0
    wait_initial_s: float = 0.5
    wait_max_s: float = 30.0
    attempt_timeout_s: float = 120.0

    def __post_init__(self) -> None:
        for name in ("attempts", "deadline_s", "wait_initial_s", "wait_max_s", "attempt_timeout_s"):
            _positive(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Hard caps; ``None`` means no cap. Answers from the cache cost nothing.

    Attributes:
        max_calls: Requests sent to the model, retries that the server answered included.
        max_tokens: Prompt plus completion tokens.
        max_cost: Money, in US dollars; needs a backend that knows its price.
    """

    max_calls: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None

    def __post_init__(self) -> None:
        _positive("max_calls", self.max_calls)
        _positive("max_tokens", self.max_tokens)
        _positive("max_cost", self.max_cost)

    @classmethod
    def of(cls, value: Budget | int | str) -> Budget:
        """A budget from a number of calls, or from a text with its unit.

        Example:
            >>> Budget.of(128)
            Budget(max_calls=128, max_tokens=None, max_cost=None)
            >>> Budget.of("20k tokens").max_tokens, Budget.of("$0.50").max_cost
            (20000, 0.5)

        Raises:
            ConfigError: It is not a budget.
        """
        if isinstance(value, Budget):
            return value
        found = _AMOUNT.fullmatch(str(value)) if not isinstance(value, bool) else None
        unit = found and _UNITS.get((found["before"] or found["after"] or "calls").lower())
        if not found or not unit or (found["before"] and found["after"]):
            raise ConfigError(
                f"{value!r} is not a budget. It is a number of calls (128), of tokens "
                "('20000 tokens', '20k tokens') or of dollars ('$0.50')."
            )
        amount = float(found["number"].replace(",", "")) * _SCALES[(found["scale"] or "").lower()]
        if unit != "max_cost" and amount != int(amount):
            raise ConfigError(f"{value!r} is not a budget: calls and tokens are whole numbers.")
        if unit == "max_cost":
            return cls(max_cost=amount)
        return cls(max_calls=int(amount)) if unit == "max_calls" else cls(max_tokens=int(amount))

    def __str__(self) -> str:
        caps = [
            f"{self.max_calls:,} calls" if self.max_calls is not None else "",
            f"{self.max_tokens:,} tokens" if self.max_tokens is not None else "",
            f"${self.max_cost:g}" if self.max_cost is not None else "",
        ]
        return ", ".join(cap for cap in caps if cap) or "no cap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What was paid.

    Attributes:
        calls: Requests sent to the model.
        tokens: Prompt plus completion tokens.
        cost: US dollars; 0 when the price is not known.
    """

    calls: int = 0
    tokens: int = 0
    cost: float = 0.0


class Tally(Protocol):
    """Remembers what was spent beyond the life of a session, so that caps hold over several.

    Called on the event loop, before every attempt and after it: it must not block.
    """

    @property
    def spent(self) -> Spent:
        """What was spent before the session opened; counts towards its caps."""
        ...

    def write(self, spent: Spent) -> None:
        """Remember what is spent, everything that is under way included at its worst case."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens.

    Attributes:
        prompt: Dollars per million prompt tokens.
        completion: Dollars per million completion tokens.
        source: Where and when the price was read.
    """

    prompt: float
    completion: float
    source: str = ""

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """US dollars for so many tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class RateStatus:
    """What a server said of its limits in one answer; any part may be missing.

    Attributes:
        limit_requests, limit_tokens: The limit per minute.
        remaining_requests, remaining_tokens: What may still be sent now.
        reset_requests_s, reset_tokens_s: Seconds until the quota is full again.
    """

    limit_requests: float | None = None
    remaining_requests: float | None = None
    reset_requests_s: float | None = None
    limit_tokens: float | None = None
    remaining_tokens: float | None = None
    reset_tokens_s: float | None = None
