# SPDX-License-Identifier: Apache-2.0
"""Rate limits and waiting times as servers announce them in headers and messages."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping

from pizza.limits import RateStatus

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|us|µs|ns|s|m|h|d)")
_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_TRY_AGAIN = re.compile(
    r"(?:try again|retry)(?: after)? in ((?:\d+(?:\.\d+)?\s*(?:ms|s|m|h|d)[a-z]*\s*)+)",
    re.IGNORECASE,
)


def parse_duration(text: str | None) -> float | None:
    """Seconds from ``"1s"``, ``"6m0s"``, ``"12ms"``, ``"1h2m3.5s"`` or a plain number.

    Returns:
        Seconds, or ``None`` when the text is missing, negative or not a duration.
    """
    if text is None:
        return None
    text = text.strip()
    number = parse_number(text)
    if number is not None:
        return number
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text).strip():
        return None
    return sum(float(value) * _SECONDS[unit] for value, unit in parts)


def parse_number(text: str | None) -> float | None:
    """A finite number of at least 0, or ``None``."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def rate_status(headers: Mapping[str, str]) -> RateStatus | None:
    """The ``x-ratelimit-*`` headers of an answer, or ``None`` when there are none."""
    get = headers.get
    status = RateStatus(
        limit_requests=parse_number(get("x-ratelimit-limit-requests")),
        remaining_requests=parse_number(get("x-ratelimit-remaining-requests")),
        reset_requests_s=parse_duration(get("x-ratelimit-reset-requests")),
        limit_tokens=parse_number(get("x-ratelimit-limit-tokens")),
        remaining_tokens=parse_number(get("x-ratelimit-remaining-tokens")),
        reset_tokens_s=parse_duration(get("x-ratelimit-reset-tokens")),
    )
    return None if status == RateStatus() else status


def retry_after(
    headers: Mapping[str, str], message: str, *, now: float | None = None
) -> float | None:
    """Seconds that the server asks to wait.

    ``retry-after-ms`` is the most precise, then ``retry-after`` (seconds or a date), then what
    the message says, then the reset times. Those are times until the quota is *full*, so
    they come last and only for a quota that is used up.

    Args:
        headers: The answer's headers.
        message: The error message of its body.
        now: Seconds since the epoch, for dates; default: the server's own clock, where it tells,
            else the system's, which may be wrong or jump.
    """
    milliseconds = parse_number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    given = headers.get("retry-after")
    seconds = parse_duration(given)
    if seconds is None and given:
        if now is None:
            now = _moment(headers.get("date", ""))
        moment = _moment(given)
        if moment is not None:
            seconds = max(0.0, moment - (time.time() if now is None else now))
    if seconds is not None:
        return seconds
    if match := _TRY_AGAIN.search(message):
        parts = _DURATION.findall(match[1])
        return sum(float(value) * _SECONDS[unit] for value, unit in parts)
    return _reset(rate_status(headers))


def _moment(date: str) -> float | None:
    """Seconds since the epoch of an HTTP date."""
    try:
        parsed = email.utils.parsedate_tz(date)
        return None if parsed is None else float(email.utils.mktime_tz(parsed))
    except (TypeError, ValueError, OverflowError):
        return None


def _reset(rate: RateStatus | None) -> float | None:
    if rate is None:
        return None
    waits = [
        reset
        for remaining, reset in (
            (rate.remaining_requests, rate.reset_requests_s),
            (rate.remaining_tokens, rate.reset_tokens_s),
        )
        if reset is not None and (remaining is None or remaining < 1)
    ]
    return max(waits, default=None)
