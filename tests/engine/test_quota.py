# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of one rate limit, without tasks."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pizza._engine.quota import Bucket, Quota


def headers(quota, now, *, remaining, limit=600.0, reset_s=None, cost=1.0, mark=None, sent_at=None):
    quota.observe(
        limit=limit,
        remaining=remaining,
        reset_s=reset_s,
        cost=cost,
        mark=quota.sent if mark is None else mark,
        on_the_way=0.0,
        sent_at=now if sent_at is None else sent_at,
        now=now,
    )


def spend(quota, now, cost=1.0):
    """Take as often as it goes at one moment; how often that was."""
    taken = 0
    while quota.wait(cost, now) <= 0 and taken < 10_000:
        quota.take(cost)
        taken += 1
    return taken


status = st.fixed_dictionaries(
    {
        "gap": st.floats(0, 30),
        "limit": st.sampled_from([None, 0.0, 60.0, 600.0, 30_000.0]),
        "remaining": st.one_of(st.none(), st.floats(0, 40_000)),
        "reset_s": st.one_of(st.none(), st.floats(0, 120)),
        "refused": st.booleans(),
        "lied": st.booleans(),
    }
)


@given(
    rpm=st.sampled_from([6.0, 60.0, 600.0]),
    burst_s=st.sampled_from([None, 0.5, 1.0, 10.0]),
    events=st.lists(status, max_size=25),
    costs=st.lists(st.floats(0.1, 100), min_size=1, max_size=3),
)
def test_whatever_a_server_says_the_users_limit_holds_in_every_window(rpm, burst_s, events, costs):
    quota, now, log = Quota(rpm, burst_s, 0.0), 0.0, []
    for number, event in enumerate(events):
        now += event["gap"]
        cost = costs[number % len(costs)]
        for _ in range(50):
            if quota.wait(cost, now) > 0:
                break
            quota.take(cost)
            log.append((now, cost))
        headers(
            quota, now, limit=event["limit"], remaining=event["remaining"], reset_s=event["reset_s"]
        )
        if event["refused"]:
            quota.punish(now)
        if event["lied"]:
            quota.distrust(now)
    rate = rpm / 60
    burst = max(1.0, rate * (burst_s or 60.0))
    for i, (start, _) in enumerate(log):
        total = 0.0
        for when, cost in log[i:]:
            total += cost
            # One request may be larger than what is left: it passes and leaves a debt.
            assert total <= burst + rate * (when - start) + cost + 1e-6


@given(st.floats(0.01, 1000), st.floats(1, 1000), st.lists(st.floats(0.01, 5000), max_size=30))
def test_a_bucket_is_never_waited_for_in_vain(rate, capacity, costs):
    bucket, now = Bucket(rate, capacity, 0.0), 0.0
    for cost in costs:
        now += bucket.wait(cost, 0.0, now)
        assert bucket.wait(cost, 0.0, now) == pytest.approx(0.0, abs=1e-6)
        bucket.level -= cost
    # Nothing is made or lost: what was taken is what was there and what flowed in.
    bucket.refill(now)
    assert sum(costs) <= capacity + rate * now + max(costs, default=0) + 1e-6


def test_a_request_larger_than_the_bucket_passes_and_leaves_a_debt():
    quota = Quota(60.0, 10.0, 0.0)  # one a second, at most ten at once
    assert quota.wait(35.0, 0.0) == pytest.approx(0.0)
    quota.take(35.0)
    # The debt of 25 is paid first.
    assert quota.wait(1.0, 0.0) == pytest.approx(26.1)  # and a tenth of a second is kept back


def test_nothing_told_and_nothing_announced_is_no_limit():
    quota = Quota(None, None, 0.0)
    assert spend(quota, 0.0) == 10_000
    assert quota.room() == math.inf


def test_the_announced_burst_is_used_and_is_kept_below_the_users():
    quota = Quota(300.0, None, 0.0)
    assert spend(quota, 0.0) < 6  # one second's worth until the server says more
    headers(quota, 0.3, limit=6000.0, remaining=5990.0)
    assert 290 <= spend(quota, 0.3) <= 300


def test_a_burst_that_the_user_forbids_is_not_learned():
    quota = Quota(600.0, 0.5, 0.0)
    headers(quota, 0.1, remaining=599.0)
    assert spend(quota, 0.1) <= 6


def test_the_level_counts_what_was_sent_after_the_request_in_its_own_unit():
    # Mistake: multiplying the number of requests sent after by the cost of *this* request.
    quota = Quota(120_000.0, None, 0.0)
    quota.take(100.0)
    mark = quota.sent
    quota.take(3000.0)
    quota.take(50.0)
    headers(quota, 1.0, limit=120_000.0, remaining=9_000.0, cost=100.0, mark=mark, sent_at=1.0)
    assert quota.room() == pytest.approx(9_000.0 - 3_050.0)


def test_an_old_answer_is_brought_up_to_date():
    # Mistake: ignoring the age of a header costs a tenth of the rate.
    quota = Quota(600.0, None, 0.0)
    headers(quota, 0.0, remaining=500.0)
    headers(quota, 2.0, remaining=100.0, sent_at=0.0)
    assert quota.room() == pytest.approx(120.0)


def test_something_is_kept_back_for_requests_that_overtake_one_another():
    # Mistake: using the very last of a bucket makes a 429 of every small disorder.
    quota = Quota(600.0, None, 0.0)
    headers(quota, 0.0, remaining=10.0)
    assert spend(quota, 0.0) == 9


def test_bursts_are_halved_at_most_once_in_five_seconds():
    quota = Quota(6000.0, None, 0.0)
    headers(quota, 0.0, limit=6000.0, remaining=4000.0)
    assert quota.server.capacity == 4001.0
    for now in (1.0, 1.1, 1.2, 5.9):
        quota.punish(now)
    assert quota.server.capacity == pytest.approx(2000.5)
    assert quota.server.level <= 0.0 + 0.1 * quota.server.rate
    quota.punish(6.1)
    assert quota.server.capacity == pytest.approx(1000.25)


def test_after_a_broken_promise_only_the_users_word_counts():
    quota = Quota(600.0, None, 0.0)
    headers(quota, 0.0, limit=30_000.0, remaining=29_999.0)
    quota.distrust(1.0)
    headers(quota, 1.5, limit=30_000.0, remaining=29_999.0)
    assert quota.server.rate == 10.0
    assert spend(quota, 2.0) <= 3
    # The user's own bucket still holds what it held.
    assert quota.user.rate == 10.0


def window(quota, *, until, used_per_s=100.0):
    """Answers of a server that counts in a window that ends at 60 s."""
    now = 0.1
    while now < until:
        headers(quota, now, remaining=max(0.0, 600.0 - used_per_s * now), reset_s=60.0 - now)
        now += 0.1


def test_a_fixed_window_is_recognised_and_waited_for():
    quota = Quota(600.0, None, 0.0)
    window(quota, until=4.0)
    assert quota.window
    spend(quota, 4.0)
    assert quota.wait(1.0, 4.0) == pytest.approx(56.0, abs=0.1)
    # At its end everything is there again at once.
    assert spend(quota, 60.0) > 500


def test_a_late_answer_of_the_last_window_says_nothing_about_this_one():
    quota = Quota(600.0, None, 0.0)
    window(quota, until=4.0)
    assert quota.wait(1.0, 60.0) == 0.0
    headers(quota, 60.05, remaining=0.0, reset_s=0.0)
    assert quota.room() > 500


@pytest.mark.parametrize("capacity", [600.0, 10.0])
def test_a_bucket_is_not_taken_for_a_window(capacity):
    quota, now = Quota(600.0, None, 0.0), 0.0
    level = capacity
    while now < 30:
        now += 0.1
        level = max(0.0, min(capacity, level + 1.0) - 2.0)
        headers(quota, now, remaining=level, reset_s=(capacity - level) / 10)
        assert not quota.window


def test_a_server_that_always_says_sixty_seconds_is_not_taken_for_a_window():
    quota, now = Quota(600.0, None, 0.0), 0.0
    while now < 30:
        now += 0.1
        headers(quota, now, remaining=9.0, reset_s=60.0)
        assert not quota.window


def test_a_window_that_turns_out_to_be_none_is_given_up():
    quota = Quota(600.0, None, 0.0)
    window(quota, until=4.0)
    assert quota.window
    headers(quota, 5.0, remaining=300.0, reset_s=10.0)
    assert not quota.window


def test_a_guessed_rate_doubles_while_it_is_far_below_what_failed_and_creeps_near_it():
    quota = Quota(None, None, 0.0)
    quota.guess(1.0, 0.0)
    for now in (1.0, 2.0, 3.0):
        quota.speed_up(now, 1.0)
    assert quota.server.rate == pytest.approx(8.0)
    quota.slow_down(4.0, 0.85)
    assert quota.server.rate == pytest.approx(6.8)
    quota.speed_up(5.0, 1.0)
    assert quota.server.rate == pytest.approx(6.8 * 1.02)


def test_a_rate_that_was_slowed_down_never_exceeds_the_users_again():
    quota = Quota(600.0, None, 0.0)
    quota.slow_down(0.0, 0.1)
    for now in range(1, 200):
        quota.speed_up(float(now), 1.0)
    assert quota.server.rate == 10.0


def test_what_was_not_used_is_given_back():
    quota = Quota(6000.0, None, 0.0)
    spend(quota, 0.0, cost=10.0)
    assert quota.wait(10.0, 0.0) > 0
    quota.give_back(50.0, sent=True)
    assert quota.wait(10.0, 0.0) == 0.0


def test_a_server_that_announces_its_level_has_counted_refunds_itself():
    quota = Quota(6000.0, None, 0.0)
    headers(quota, 0.0, limit=6000.0, remaining=50.0)
    before = quota.room()
    quota.give_back(30.0, sent=True)
    assert quota.room() == before
    quota.give_back(30.0, sent=False)
    assert quota.room() == before + 30.0


def test_a_request_that_cost_more_than_reserved_is_charged():
    quota = Quota(6000.0, None, 0.0)
    before = quota.room()
    quota.charge(30.0)
    assert quota.room() == before - 30.0


@pytest.mark.parametrize("charged", [1.0, 1.25, 2.0, 4.0])
def test_how_the_server_counts_tokens_is_learned_from_what_it_has_left(charged):
    quota, now, left = Quota(120_000.0, None, 0.0, estimated=True), 0.0, 60_000.0
    headers(quota, 0.0, limit=120_000.0, remaining=left)
    for _ in range(400):
        now += 0.5
        quota.take(1100.0 / charged)
        left = left + 0.5 * 2000.0 - 1100.0
        headers(quota, now, limit=120_000.0, remaining=left, cost=1100.0 / charged)
    assert quota.factor == pytest.approx(charged, rel=0.05)


def test_a_refusal_says_how_much_more_the_server_counts():
    quota = Quota(120_000.0, None, 0.0, estimated=True)
    headers(quota, 0.0, limit=120_000.0, remaining=9_000.0)
    # 400 were left and 0.3 s at 2,000/s were missing: it was charged 1,000 for our 500.
    quota.refused(500.0, 400.0, 0.3)
    assert quota.factor == pytest.approx(2.0)
    # Whole seconds are rounded: only what was left says something.
    quota.refused(500.0, 400.0, 30.0)
    assert quota.factor == pytest.approx(2.0)


def test_requests_are_counted_by_everybody_in_the_same_way():
    quota = Quota(600.0, None, 0.0)
    headers(quota, 0.0, remaining=9.0)
    quota.refused(1.0, 400.0, 0.3)
    assert quota.factor == 1.0
