# SPDX-License-Identifier: Apache-2.0
"""The server's rate limits, on a clock that the test moves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pizza_embedded.ratelimit import (
    STYLES,
    FixedWindow,
    RateLimit,
    Style,
    TokenBucket,
    format_duration,
    make_quota,
)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def admitted(limit: RateLimit, n: int, tokens: float = 0) -> int:
    return sum(limit.admit(tokens).limited_by is None for _ in range(n))


def requests(style: Style, clock: Clock, per_minute: float = 600, **more: float) -> RateLimit:
    return RateLimit(requests=make_quota(style, per_minute, clock=clock, **more))


def test_a_minute_bucket_lets_a_whole_minute_through_and_then_the_rate(clock: Clock) -> None:
    limit = requests("minute", clock)
    assert admitted(limit, 700) == 600
    clock.now += 1
    assert admitted(limit, 700) == 10


def test_a_second_bucket_lets_a_second_through_and_then_the_rate(clock: Clock) -> None:
    limit = requests("second", clock)
    assert admitted(limit, 700) == 10
    clock.now += 0.1
    assert admitted(limit, 700) == 1
    clock.now += 60
    assert admitted(limit, 700) == 10


def test_refused_requests_cost_nothing_but_in_the_strict_style(clock: Clock) -> None:
    plain, strict = requests("second", clock), requests("second-strict", clock)
    for limit in (plain, strict):
        assert admitted(limit, 10) == 10
    clock.now += 0.09
    for limit in (plain, strict):
        assert admitted(limit, 1) == 0
    clock.now += 0.02
    # The bucket would be at 1.1 now, had the refusal not emptied it.
    assert admitted(plain, 1) == 1
    assert admitted(strict, 1) == 0
    clock.now += 0.1
    assert admitted(strict, 1) == 1


def test_a_refusal_in_the_strict_style_never_makes_a_debt(clock: Clock) -> None:
    limit = requests("second-strict", clock)
    admitted(limit, 500)
    clock.now += 0.1
    assert admitted(limit, 1) == 1


def test_a_fixed_window_gives_everything_at_its_start(clock: Clock) -> None:
    limit = requests("fixed-window", clock)
    assert admitted(limit, 700) == 600
    clock.now += 59.9
    assert admitted(limit, 700) == 0
    assert limit.admit(0).retry_after_s == pytest.approx(0.1)
    clock.now += 0.1
    assert admitted(limit, 700) == 600
    clock.now += 150
    assert limit.headers()["x-ratelimit-remaining-requests"] == "600"


@pytest.mark.parametrize("style", STYLES)
def test_waiting_as_long_as_told_is_always_enough(style: Style, clock: Clock) -> None:
    limit = RateLimit(
        requests=make_quota(style, 600, clock=clock),
        tokens=make_quota(style, 100_000, clock=clock),
    )
    for _ in range(2000):
        decision = limit.admit(170)
        if decision.limited_by is not None:
            clock.now += decision.retry_after_s
            assert limit.admit(170).limited_by is None


def test_headers_say_limit_remaining_and_time_to_full(clock: Clock) -> None:
    limit = RateLimit(
        requests=make_quota("minute", 60, clock=clock),
        tokens=make_quota("minute", 6000, clock=clock),
    )
    decision = limit.admit(1500)
    assert dict(decision.headers) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "4500",
        "x-ratelimit-reset-tokens": "15s",
    }


def test_a_refusal_names_its_limit_and_when_to_come_back(clock: Clock) -> None:
    limit = RateLimit(
        requests=make_quota("minute", 60, clock=clock),
        tokens=make_quota("minute", 6000, clock=clock),
    )
    assert limit.admit(5950).limited_by is None
    decision = limit.admit(100)
    assert decision.limited_by == "tokens"
    assert decision.retry_after_s == pytest.approx(0.5)
    assert decision.headers["retry-after"] == "1"
    assert decision.headers["retry-after-ms"] == "500"
    # The refusal took nothing from the other quota.
    assert decision.headers["x-ratelimit-remaining-requests"] == "59"


def test_a_server_may_keep_its_limits_to_itself(clock: Clock) -> None:
    limit = RateLimit(requests=make_quota("second", 60, clock=clock), announce=False)
    assert limit.admit(1).headers == {}
    refused = limit.admit(1)
    assert (refused.limited_by, dict(refused.headers)) == ("requests", {})


def test_a_request_above_the_capacity_waits_for_a_full_bucket_and_leaves_a_debt(
    clock: Clock,
) -> None:
    bucket = TokenBucket(6000, clock=clock, capacity=100)
    assert bucket.wait_s(300) == 0
    bucket.take(300)
    assert bucket.remaining() == 0
    assert bucket.wait_s(1) == pytest.approx(2.01)
    assert bucket.wait_s(300) == pytest.approx(3.0)


def test_a_request_above_the_limit_itself_can_never_be_sent(clock: Clock) -> None:
    for style in STYLES:
        limit = RateLimit(tokens=make_quota(style, 1000, clock=clock))
        decision = limit.admit(1001)
        assert (decision.limited_by, decision.retry_after_s) == ("tokens", math.inf)
        assert "retry-after" not in decision.headers


def test_unused_tokens_are_given_back_up_to_the_capacity(clock: Clock) -> None:
    bucket, window = TokenBucket(600, clock=clock), FixedWindow(600, clock=clock)
    for quota in (bucket, window):
        quota.take(500)
        quota.give_back(450)
        assert quota.remaining() == 550
        quota.give_back(10_000)
        assert quota.remaining() == 600


def test_no_quota_lets_everything_through_without_headers() -> None:
    limit = RateLimit()
    assert admitted(limit, 1000, tokens=1e9) == 1000
    assert limit.headers() == {}
    limit.give_back(5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.0123, "13ms"),
        (0.9999, "1s"),
        (1.5, "1.5s"),
        (59.88, "59.88s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (3723.25, "1h2m3.25s"),
        (-1, "0ms"),
    ],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(
    style=st.sampled_from(STYLES),
    steps=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 40)), max_size=60),
)
def test_no_style_ever_admits_more_than_burst_plus_rate(
    style: Style, steps: list[tuple[float, int]]
) -> None:
    clock = Clock()
    limit = requests(style, clock, per_minute=120)
    burst = {"minute": 120, "fixed-window": 120}.get(style, 2)
    start, count = clock.now, 0
    for pause, asked in steps:
        clock.now += pause
        count += admitted(limit, asked)
        passed = clock.now - start
        most = burst * (1 + passed // 60) if style == "fixed-window" else burst + 2 * passed
        assert count <= most + 1e-3
