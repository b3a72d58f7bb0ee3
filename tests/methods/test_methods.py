# SPDX-License-Identifier: Apache-2.0
"""Methods are generators: they are tested on games with known answers, without any I/O."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pizza.abc import Game
from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.methods.hierarchical import Hierarchical
from pizza.methods.leave_one_out import LeaveOneOut
from pizza.methods.sliding_window import SlidingWindow


def make_game(n_units, n_columns=1, max_calls=None):
    return Game(
        n_units=n_units,
        n_columns=n_columns,
        groups=np.zeros((n_units, 3), dtype=np.int64),
        lengths=np.ones(n_units, dtype=np.int64),
        max_calls=max_calls,
    )


def play(method, value, n_units, n_columns=1, max_calls=None):
    """Run a method on ``value(present) -> (n_columns,)``; returns scores and coalitions asked."""
    asked = []
    plan = method.plan(make_game(n_units, n_columns, max_calls))
    rows = next(plan)
    while True:
        assert rows.dtype == bool
        assert rows.shape[1] == n_units
        asked.extend(map(tuple, rows))
        base = value(np.ones(n_units, dtype=bool))
        try:
            rows = plan.send(np.array([value(row) - base for row in rows]))
        except StopIteration as end:
            return end.value, asked


def linear(weights):
    weights = np.atleast_2d(np.asarray(weights, dtype=float))
    return lambda present: weights @ present


weights = st.lists(st.integers(-50, 50), min_size=1, max_size=12)


@given(weights)
def test_leave_one_out_recovers_a_linear_game_exactly(w):
    scores, asked = play(LeaveOneOut(), linear(w), len(w))
    assert scores.values.tolist() == [[float(x) for x in w]]
    assert len(asked) == len(w) == len(set(asked))


def test_a_supporting_unit_scores_positive_and_an_opposing_one_negative():
    scores, _ = play(LeaveOneOut(), linear([2.0, -3.0]), 2)
    assert scores.values[0, 0] > 0 > scores.values[0, 1]


def test_every_column_is_scored_by_its_own_values():
    scores, _ = play(LeaveOneOut(), linear([[1, 2, 3], [30, 20, 10]]), 3, n_columns=2)
    assert scores.values.tolist() == [[1, 2, 3], [30, 20, 10]]


def test_leave_one_out_says_what_it_needs_before_it_asks():
    plan = LeaveOneOut().plan(make_game(10, max_calls=9))
    with pytest.raises(BudgetTooSmallError, match=r"needs 10 calls .* allows 9") as caught:
        next(plan)
    assert (caught.value.needed, caught.value.allowed) == (10, 9)


@given(weights, st.integers(1, 5), st.data())
def test_sliding_windows_share_a_linear_games_effects(w, size, data):
    stride = data.draw(st.integers(1, size))
    n = len(w)
    scores, asked = play(SlidingWindow(size=size, stride=stride), linear(w), n)
    # The oracle: every window, and the mean over windows of the members' equal shares.
    starts = sorted({*range(0, max(n - size, 0) + 1, stride), max(n - size, 0)})
    windows = [range(s, min(s + size, n)) for s in starts]
    assert len(asked) == len(windows)
    for unit in range(n):
        shares = [sum(w[j] for j in win) / len(win) for win in windows if unit in win]
        assert scores.values[0, unit] == pytest.approx(np.mean(shares))


def test_adjoining_windows_keep_the_total():
    w = [1.0, 5.0, -2.0, 4.0, 0.0, 3.0]
    scores, asked = play(SlidingWindow(size=2, stride=2), linear(w), 6)
    assert scores.values.sum() == pytest.approx(sum(w))
    assert len(asked) == 3


def test_a_window_larger_than_the_prompt_is_the_prompt():
    scores, asked = play(SlidingWindow(size=5, stride=1), linear([1.0, 3.0]), 2)
    assert asked == [(False, False)]
    assert scores.values.tolist() == [[2.0, 2.0]]


def test_an_undefined_window_makes_its_members_undefined():
    def value(present):
        return np.array([np.nan if not present[0] else 0.0])

    plan = SlidingWindow(size=2, stride=2).plan(make_game(4))
    rows = next(plan)
    with pytest.raises(StopIteration) as end:
        plan.send(np.array([value(row) for row in rows]))
    assert np.isnan(end.value.value.values[0]).tolist() == [True, True, False, False]


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 2, "stride": 3}, {"stride": 0}])
def test_sliding_window_refuses_windows_that_leave_gaps(options):
    with pytest.raises(ConfigError, match="not"):
        SlidingWindow(**options)


def test_hierarchical_finds_the_one_unit_that_matters_with_few_calls():
    w = np.zeros(256)
    w[77] = 8.0
    scores, asked = play(Hierarchical(), linear(w), 256)
    assert scores.values[0].argmax() == 77
    assert scores.values[0, 77] == 8.0
    assert len(asked) == 4 + 2 * 6  # four quarters, then two halves for each of six levels
    assert len(set(asked)) == len(asked)


@given(
    weights,
    st.sampled_from([{}, {"chunks": 1}, {"chunks": 3, "threshold": "quantile", "value": 0.5}]),
)
def test_hierarchical_never_asks_twice_and_stays_within_its_bounds(w, options):
    method = Hierarchical(**options)
    scores, asked = play(method, linear(w), len(w))
    assert len(set(asked)) == len(asked)
    least, most = method.calls(len(w))
    assert least <= len(asked) <= most
    assert scores.values.sum() == pytest.approx(sum(w))  # a linear game's total is kept


def test_a_static_threshold_of_zero_splits_down_to_leave_one_out():
    w = [3.0, 1.0, 4.0, 1.5, 5.0, 9.0]
    method = Hierarchical(chunks=2, threshold="static", value=0.0)
    scores, _ = play(method, linear(w), 6)
    assert scores.values[0].tolist() == w


def test_depth_limits_the_rounds():
    w = np.zeros(64)
    w[3] = 1.0
    scores, asked = play(Hierarchical(chunks=4, max_depth=2), linear(w), 64)
    assert len(asked) == 6
    assert scores.values[0, :8].tolist() == [1 / 8] * 8


def test_hierarchical_never_exceeds_the_calls_it_is_given():
    rng = np.random.default_rng(0)
    w = rng.normal(size=100)
    for allowed in range(4, 60, 7):
        _, asked = play(Hierarchical(), linear(w), 100, max_calls=allowed)
        assert len(asked) <= allowed


def test_a_level_without_any_effect_is_not_split():
    _, asked = play(Hierarchical(), linear(np.zeros(64)), 64)
    assert len(asked) == 4


def test_the_first_column_decides_what_is_split():
    w = np.zeros((2, 16))
    w[0, 2] = 1.0
    w[1, 13] = 100.0
    scores, asked = play(Hierarchical(), linear(w), 16, n_columns=2)
    assert scores.values[0].argmax() == 2
    assert len(asked) == 4 + 2 + 2
    assert scores.values[1, 12:].tolist() == [25.0] * 4


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": 0},
        {"threshold": "median"},
        {"threshold": "static"},
        {"threshold": "quantile", "value": 1.5},
        {"threshold": "mid-range", "value": 1.0},
        {"max_depth": 0},
    ],
)
def test_hierarchical_says_what_it_accepts(options):
    with pytest.raises(ConfigError):
        Hierarchical(**options)


def test_permuting_the_units_permutes_the_leave_one_out_scores():
    w = [1.0, 2.0, 4.0]

    def pairwise(present):
        return np.array([w @ present + 3.0 * present[0] * present[1]])

    expected, _ = play(LeaveOneOut(), pairwise, 3)
    for order in itertools.permutations(range(3)):
        back = np.argsort(order)
        scores, _ = play(LeaveOneOut(), lambda p, b=back: pairwise(p[b]), 3)
        assert scores.values[0].tolist() == expected.values[0][list(order)].tolist()
