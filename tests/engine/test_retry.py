# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pizza._engine.retry import Backoff
from pizza.limits import RetryPolicy


@pytest.mark.parametrize(("attempt", "ceiling"), [(1, 1.0), (2, 2.0), (4, 8.0), (6, 30.0)])
def test_the_waits_are_uniform_up_to_a_ceiling_that_doubles(attempt, ceiling):
    backoff = Backoff(RetryPolicy(wait_initial_s=0.5, wait_max_s=30.0))
    waits = [backoff.wait(attempt) for _ in range(2000)]
    assert 0 <= min(waits) < 0.05 * ceiling
    assert 0.95 * ceiling < max(waits) <= ceiling
    assert sum(waits) / len(waits) == pytest.approx(ceiling / 2, rel=0.1)


@given(st.integers(1, 5000), st.floats(0.01, 10), st.floats(0.01, 100))
def test_no_wait_is_longer_than_asked_for(attempt, initial, longest):
    backoff = Backoff(RetryPolicy(wait_initial_s=initial, wait_max_s=longest))
    assert 0 <= backoff.wait(attempt) <= longest


def test_clients_that_failed_together_come_back_apart():
    backoff = Backoff(RetryPolicy())
    assert len({backoff.wait(1) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("attempts", "elapsed", "wait", "expected"),
    [(1, 0, 0, True), (3, 0, 0, False), (2, 99, 1, True), (2, 99, 1.1, False), (1, 101, 0, False)],
)
def test_attempts_and_the_deadline_end_it(attempts, elapsed, wait, expected):
    backoff = Backoff(RetryPolicy(attempts=3, deadline_s=100.0))
    assert backoff.may_try(attempts, elapsed, wait) is expected
