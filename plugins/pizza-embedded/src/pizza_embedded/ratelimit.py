# SPDX-License-Identifier: Apache-2.0
"""Rate limits as API servers enforce them: pure rules, driven by the clock they are given.

A `Quota` counts one thing (requests or tokens). `RateLimit` puts the two together and words the
``x-ratelimit-*`` and ``retry-after`` headers. Nothing here sleeps or reads the time by itself.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Clock = Callable[[], float]
"""Returns monotonic seconds."""

Style = Literal["minute", "second", "second-strict", "fixed-window"]
STYLES: tuple[Style, ...] = get_args(Style)

MINUTE_S = 60.0


class Quota(ABC):
    """How much of one thing may be used per minute.

    Attributes:
        per_minute: The limit that the server announces.
    """

    per_minute: float

    @abstractmethod
    def wait_s(self, amount: float) -> float:
        """Seconds until ``amount`` would be admitted; 0 = now, ``inf`` = never."""

    @abstractmethod
    def take(self, amount: float) -> None:
        """Use ``amount``; the caller has seen that ``wait_s(amount)`` is 0."""

    @abstractmethod
    def refuse(self, amount: float) -> None:
        """A request for ``amount`` was refused; some servers charge for that."""

    @abstractmethod
    def give_back(self, amount: float) -> None:
        """Return what was taken and not used."""

    @abstractmethod
    def remaining(self) -> float:
        """What may be used now."""

    @abstractmethod
    def reset_s(self) -> float:
        """Seconds until the whole quota is there again, if nothing more is used."""


class TokenBucket(Quota):
    """A bucket that fills at a constant rate up to its capacity.

    A capacity of a whole minute's worth allows everything at once after a quiet minute. A capacity
    of one second's worth is what "600 per minute, enforced as 10 per second" comes to.

    An amount larger than the capacity (one long prompt) is admitted by a full bucket, which then
    owes the difference; else it could never be sent.
    """

    def __init__(
        self,
        per_minute: float,
        *,
        clock: Clock,
        capacity: float | None = None,
        charge_refused: bool = False,
    ) -> None:
        """Make a full bucket.

        Args:
            per_minute: Rate of filling.
            clock: The time, seconds.
            capacity: The most that it holds; by default one minute's worth.
            charge_refused: Whether refused requests use up quota too. They never put the bucket
                into debt, but a caller who keeps knocking keeps it empty.
        """
        self.per_minute = per_minute
        self.capacity = per_minute if capacity is None else capacity
        self._rate = per_minute / MINUTE_S
        self._clock = clock
        self._charge_refused = charge_refused
        self._level = self.capacity
        self._at = clock()

    def _fill(self) -> float:
        now = self._clock()
        self._level = min(self.capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        return self._level

    def wait_s(self, amount: float) -> float:
        """See `Quota.wait_s`."""
        if amount > max(self.per_minute, self.capacity):
            return math.inf
        missing = min(amount, self.capacity) - self._fill()
        # Filling in many small steps loses some 1e-13: a client that waited exactly as long as it
        # was told must not be refused for that.
        return missing / self._rate if missing > 1e-6 else 0.0

    def take(self, amount: float) -> None:
        """See `Quota.take`."""
        self._level = self._fill() - amount

    def refuse(self, amount: float) -> None:
        """See `Quota.refuse`."""
        if self._charge_refused:
            level = self._fill()
            self._level = min(level, max(0.0, level - amount))

    def give_back(self, amount: float) -> None:
        """See `Quota.give_back`."""
        self._level = min(self.capacity, self._fill() + amount)

    def remaining(self) -> float:
        """See `Quota.remaining`."""
        return max(0.0, self._fill())

    def reset_s(self) -> float:
        """See `Quota.reset_s`."""
        return (self.capacity - self._fill()) / self._rate


class FixedWindow(Quota):
    """A full quota at the start of every window, nothing in between.

    Windows follow one another from the moment the rule is made, used or not.
    """

    def __init__(self, per_minute: float, *, clock: Clock, window_s: float = MINUTE_S) -> None:
        """Make a rule whose first window opens now.

        Args:
            per_minute: The limit, per minute.
            clock: The time, seconds.
            window_s: Length of a window, seconds.
        """
        self.per_minute = per_minute
        self._clock = clock
        self._window_s = window_s
        self._capacity = per_minute * window_s / MINUTE_S
        self._start = clock()
        self._used = 0.0

    def _turn(self) -> float:
        """Seconds left in the current window, after entering it."""
        now = self._clock()
        passed = math.floor((now - self._start) / self._window_s)
        if passed > 0:
            self._start += passed * self._window_s
            self._used = 0.0
        return self._start + self._window_s - now

    def wait_s(self, amount: float) -> float:
        """See `Quota.wait_s`."""
        if amount > self._capacity:
            return math.inf
        left_s = self._turn()
        return 0.0 if self._used + amount <= self._capacity + 1e-6 else left_s

    def take(self, amount: float) -> None:
        """See `Quota.take`."""
        self._turn()
        self._used += amount

    def refuse(self, amount: float) -> None:
        """See `Quota.refuse`; free of charge here."""

    def give_back(self, amount: float) -> None:
        """See `Quota.give_back`; what a past window gave is lost with it."""
        self._turn()
        self._used = max(0.0, self._used - amount)

    def remaining(self) -> float:
        """See `Quota.remaining`."""
        self._turn()
        return max(0.0, self._capacity - self._used)

    def reset_s(self) -> float:
        """See `Quota.reset_s`."""
        left_s = self._turn()
        return left_s if self._used else 0.0


def make_quota(
    style: Style, per_minute: float, *, clock: Clock, burst_s: float | None = None, least: float = 1
) -> Quota:
    """The rule of a style.

    Args:
        style: ``"minute"``: a bucket with one minute's worth. ``"second"``: one second's worth.
            ``"second-strict"``: the same, and refused requests cost quota. ``"fixed-window"``: a
            full quota every 60 s.
        per_minute: The limit.
        clock: The time, seconds.
        burst_s: The bucket's capacity in seconds' worth, in place of the style's own.
        least: Smallest capacity of a bucket.
    """
    if style == "fixed-window":
        return FixedWindow(per_minute, clock=clock)
    if burst_s is None:
        burst_s = MINUTE_S if style == "minute" else 1.0
    return TokenBucket(
        per_minute,
        clock=clock,
        capacity=max(least, per_minute * burst_s / MINUTE_S),
        charge_refused=style == "second-strict",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether a request may pass, and what the server says about it.

    Attributes:
        limited_by: ``None`` = it may pass; else the quota that it does not fit.
        retry_after_s: Seconds to wait; ``inf`` when no wait would help.
        headers: The ``x-ratelimit-*`` headers, and ``retry-after`` ones on a refusal.
    """

    limited_by: Literal["requests", "tokens"] | None = None
    retry_after_s: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)


class RateLimit:
    """Requests and tokens per minute together: a request needs room in both."""

    def __init__(
        self, *, requests: Quota | None = None, tokens: Quota | None = None, announce: bool = True
    ) -> None:
        """Put the quotas together.

        Args:
            requests: The quota of requests; ``None`` = no limit.
            tokens: The quota of tokens; ``None`` = no limit.
            announce: Whether answers carry any headers about it.
        """
        self.requests = requests
        self.tokens = tokens
        self._announce = announce

    def admit(self, tokens: float) -> Decision:
        """Decide on one request of so many tokens, and charge it if it may pass."""
        wait_requests = self.requests.wait_s(1) if self.requests else 0.0
        wait_tokens = self.tokens.wait_s(tokens) if self.tokens else 0.0
        if not wait_requests and not wait_tokens:
            if self.requests:
                self.requests.take(1)
            if self.tokens:
                self.tokens.take(tokens)
            return Decision(headers=self.headers())
        if self.requests:
            self.requests.refuse(1)
        if self.tokens:
            self.tokens.refuse(tokens)
        # Asked again: a refusal that costs quota has made the wait longer.
        wait_requests = self.requests.wait_s(1) if self.requests else 0.0
        wait_tokens = self.tokens.wait_s(tokens) if self.tokens else 0.0
        wait_s = max(wait_requests, wait_tokens)
        headers = self.headers()
        if self._announce and math.isfinite(wait_s):
            headers["retry-after"] = str(math.ceil(wait_s))
            headers["retry-after-ms"] = str(math.ceil(wait_s * 1000))
        return Decision(
            limited_by="tokens" if wait_tokens > wait_requests else "requests",
            retry_after_s=wait_s,
            headers=headers,
        )

    def give_back(self, tokens: float) -> None:
        """Return tokens that were charged beforehand and not used."""
        if self.tokens and tokens > 0:
            self.tokens.give_back(tokens)

    def headers(self) -> dict[str, str]:
        """The ``x-ratelimit-*`` headers as things stand now."""
        result: dict[str, str] = {}
        if not self._announce:
            return result
        for name, quota in (("requests", self.requests), ("tokens", self.tokens)):
            if quota is not None:
                result[f"x-ratelimit-limit-{name}"] = str(math.floor(quota.per_minute))
                # Rounded down: announcing a request that is not there yet would provoke a refusal.
                result[f"x-ratelimit-remaining-{name}"] = str(math.floor(quota.remaining() + 1e-6))
                result[f"x-ratelimit-reset-{name}"] = format_duration(quota.reset_s())
        return result


def format_duration(seconds: float) -> str:
    """A duration the way OpenAI's headers write it: ``"12ms"``, ``"1.5s"``, ``"6m0s"``.

    Rounded up to milliseconds, so that waiting for it is always enough.
    """
    milliseconds = math.ceil(max(0.0, seconds) * 1000 - 1e-6)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    tail = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if not minutes:
        return tail
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + f"{minutes}m{tail}"
