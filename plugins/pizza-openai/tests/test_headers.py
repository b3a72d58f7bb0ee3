# SPDX-License-Identifier: Apache-2.0
"""Durations, limits and waiting times as servers write them."""

import pytest
from pizza_openai.headers import parse_duration, rate_status, retry_after

from pizza.limits import RateStatus

# Saturday, 21 November 2026, 13:00:00 GMT
NOW = 1795266000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("12ms", 0.012),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400.0),
        ("120µs", 0.00012),
        ("7.66s", 7.66),
        ("20", 20.0),
        (" 0.5 ", 0.5),
        ("0", 0.0),
        (None, None),
        ("", None),
        ("-1", None),
        ("-1s", None),
        ("soon", None),
        ("1s or so", None),
        ("inf", None),
        ("nan", None),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == (None if seconds is None else pytest.approx(seconds))


def test_all_six_headers():
    headers = {
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-reset-requests": "8.64s",
        "x-ratelimit-limit-tokens": "200000",
        "x-ratelimit-remaining-tokens": "199990",
        "x-ratelimit-reset-tokens": "3ms",
    }
    assert rate_status(headers) == RateStatus(
        limit_requests=10000,
        remaining_requests=9999,
        reset_requests_s=8.64,
        limit_tokens=200000,
        remaining_tokens=199990,
        reset_tokens_s=0.003,
    )


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, None),
        ({"x-ratelimit-limit-requests": "many"}, None),
        ({"x-ratelimit-remaining-tokens": "0"}, RateStatus(remaining_tokens=0)),
    ],
)
def test_what_is_missing_or_unreadable_is_none(headers, status):
    assert rate_status(headers) == status


RESET = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9s"}


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, "", 1.5),
        ({"retry-after-ms": "x", "retry-after": "9"}, "", 9.0),
        ({"retry-after": "0.25"}, "Please try again in 20s.", 0.25),
        ({"retry-after": "Sat, 21 Nov 2026 13:00:30 GMT"}, "", 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:00 GMT"}, "", 0.0),
        ({"retry-after": "later"}, "", None),
        (RESET, "Limit reached. Please try again in 1.2s. Visit us.", 1.2),
        ({}, "Please try again in 6m0s.", 360.0),
        ({}, "Please try again in 120ms.", 0.12),
        ({}, "Please retry after in 2 seconds", 2.0),
        (RESET, "", 9.0),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "9s"}, "", None),
        (RESET | {"x-ratelimit-reset-tokens": "11s"}, "", 11.0),
        ({}, "Slow down.", None),
    ],
)
def test_the_most_precise_source_wins(headers, message, seconds):
    found = retry_after(headers, message, now=NOW)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_dates_are_read_by_the_servers_own_clock():
    """Given a clock that is an hour off on our side -> what the server meant."""
    headers = {
        "date": "Sat, 21 Nov 2026 13:00:00 GMT",
        "retry-after": "Sat, 21 Nov 2026 13:00:30 GMT",
    }
    assert retry_after(headers, "") == 30.0
    assert retry_after({**headers, "date": "soon"}, "", now=NOW) == pytest.approx(30.0)
