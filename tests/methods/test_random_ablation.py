# SPDX-License-Identifier: Apache-2.0
"""Differences of means, against their definition and the exact Banzhaf values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.games_known import Known, exact_banzhaf, play, random_moebius

from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.methods.random_ablation import RandomAblation


def test_scores_are_differences_of_means_with_welch_errors():
    game = Known(random_moebius(12, 5, 0))
    scores, asked = play(RandomAblation(samples=60), game, 12)
    values = game(asked) - game(np.ones((1, 12), dtype=bool))
    for unit in range(12):
        inside, outside = values[asked[:, unit]], values[~asked[:, unit]]
        assert scores.values[0, unit] == pytest.approx(inside.mean() - outside.mean(), abs=1e-12)
        welch = np.sqrt(inside.var(ddof=1) / len(inside) + outside.var(ddof=1) / len(outside))
        assert scores.standard_errors[0, unit] == pytest.approx(welch, abs=1e-12)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, 100))
def test_all_coalitions_give_the_exact_banzhaf_values(n, seed):
    values = np.random.default_rng(seed).normal(size=2**n)
    game = lambda rows: values[rows @ (1 << np.arange(n))]  # noqa: E731
    scores, asked = play(RandomAblation(), game, n)
    assert len(asked) == 2**n - 1
    np.testing.assert_allclose(scores.values[0], exact_banzhaf(game, n), atol=1e-12)
    assert (scores.standard_errors == 0).all()


def test_scores_converge_to_the_banzhaf_values_within_their_errors():
    game = Known(random_moebius(20, 6, 1), noise=0.0)
    scores, _ = play(RandomAblation(samples=4000), game, 20)
    off = (scores.values[0] - game.banzhaf()) / scores.standard_errors[0]
    assert np.abs(off).max() < 3.5
    assert 0.5 < np.sqrt(np.mean(off**2)) < 1.5


def test_a_constant_game_scores_zero():
    scores, _ = play(RandomAblation(samples=20), lambda rows: np.full(len(rows), -3.7), 10)
    assert (scores.values == 0).all()
    assert (scores.standard_errors == 0).all()


def test_unknown_values_are_left_out_of_their_column_only():
    def value(rows):
        sums = rows @ np.arange(1.0, 9.0)
        return np.column_stack(
            [sums, np.where(rows[:, 0], sums, np.nan), np.full(len(rows), np.nan)]
        )

    scores, _ = play(RandomAblation(samples=100), value, 8)
    alone, _ = play(RandomAblation(samples=100), lambda rows: value(rows)[:, 0], 8)
    np.testing.assert_allclose(scores.values[0], alone.values[0], atol=1e-12)
    assert np.isnan(scores.values[1, 0])  # never absent where known
    assert np.isfinite(scores.values[1, 1:]).all()
    assert np.isnan(scores.values[2]).all()


def test_the_budget_is_kept_and_the_seed_decides():
    game = Known(random_moebius(20, 6, 1))
    first, asked = play(RandomAblation(), game, 20, max_calls=37, seed=4)
    again, _ = play(RandomAblation(), game, 20, max_calls=37, seed=4)
    other, _ = play(RandomAblation(), game, 20, max_calls=37, seed=5)
    assert len(asked) == 37 == first.details["samples"]
    assert first.values.tolist() == again.values.tolist() != other.values.tolist()
    assert first.details["index"] == "banzhaf"


def test_too_little_is_refused_by_name():
    with pytest.raises(BudgetTooSmallError, match="random-ablation needs 8 calls"):
        play(RandomAblation(), lambda rows: rows[:, 0], 10, max_calls=7)
    with pytest.raises(ConfigError, match="samples=3"):
        play(RandomAblation(samples=3), lambda rows: rows[:, 0], 10)
    with pytest.raises(ConfigError, match="not 0"):
        RandomAblation(samples=0)
