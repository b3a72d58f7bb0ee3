# SPDX-License-Identifier: Apache-2.0
"""C-LIME against a regression by hand on the same subsets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from support.games_known import Known, play, random_moebius

from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.methods.c_lime import CLime, subsets_of_size


def test_calls_are_split_among_the_sizes_as_the_recipe_says():
    scores, asked = play(CLime(), lambda rows: rows @ np.ones(30), 30)
    removed = (~asked).sum(axis=1)
    assert np.bincount(removed).tolist() == [0, 30, 270]  # all 30 alone, the rest of 10n in pairs
    assert scores.details["removed"] == [1, 30, 270]
    _, asked = play(CLime(samples=60), lambda rows: rows @ np.ones(20), 20)
    assert np.bincount((~asked).sum(axis=1)).tolist() == [0, 20, 40]
    _, asked = play(CLime(max_removed=3, samples=90), lambda rows: rows @ np.ones(12), 12)
    assert np.bincount((~asked).sum(axis=1)).tolist() == [0, 12, 39, 39]


def test_scores_are_minus_the_coefficients_of_the_weighted_fit():
    game = Known(random_moebius(12, 5, 0))
    scores, asked = play(CLime(samples=50), game, 12)
    rows = np.vstack([np.ones((1, 12), dtype=bool), asked])
    sizes = (~rows).sum(axis=1)
    weights = 1.0 / np.bincount(sizes)[sizes]
    fitted = LinearRegression().fit(~rows, game(rows) - game(rows[:1]), sample_weight=weights)
    np.testing.assert_allclose(scores.values[0], -fitted.coef_, atol=1e-10)


@settings(deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=12), st.integers(1, 3))
def test_a_linear_game_is_recovered_exactly_from_the_least_calls(weights, max_removed):
    method = CLime(max_removed=max_removed)
    least, _ = method.calls(len(weights))
    scores, asked = play(
        method, lambda rows: rows @ np.array(weights, dtype=float), len(weights), max_calls=least
    )
    np.testing.assert_allclose(scores.values[0], weights, atol=1e-8)
    assert len(asked) == least


def test_with_one_removal_it_is_leave_one_out():
    game = Known(random_moebius(12, 5, 0))
    scores, asked = play(CLime(max_removed=1), game, 12)
    whole = game(np.ones((1, 12), dtype=bool))
    expected = whole - game(~np.eye(12, dtype=bool))
    assert len(asked) == 12
    np.testing.assert_allclose(scores.values[0], expected, atol=1e-10)


def test_few_nonzeros_are_the_strong_ones_fitted_again():
    weights = np.zeros(20)
    weights[[3, 8, 15]] = 4.0, -5.0, 6.0
    weights[0] = 0.01
    scores, _ = play(CLime(num_nonzeros=3), lambda rows: rows @ weights, 20)
    assert np.flatnonzero(scores.values[0]).tolist() == [3, 8, 15]
    np.testing.assert_allclose(scores.values[0, [3, 8, 15]], [4.0, -5.0, 6.0], atol=0.05)


@pytest.mark.parametrize("nonzeros", [None, 2])
def test_a_constant_game_scores_zero(nonzeros):
    scores, _ = play(CLime(num_nonzeros=nonzeros), lambda rows: np.full(len(rows), 2.0), 8)
    assert np.abs(scores.values).max() < 1e-12


def test_a_unit_whose_removals_are_all_unknown_has_no_score():
    def value(rows):
        sums = rows @ np.arange(8.0)
        return np.column_stack(
            [sums, np.where(rows[:, 2], sums, np.nan), np.full(len(rows), np.nan)]
        )

    scores, _ = play(CLime(), value, 8)
    np.testing.assert_allclose(scores.values[0], np.arange(8.0), atol=1e-9)
    assert np.isnan(scores.values[1]).tolist() == [i == 2 for i in range(8)]
    assert np.isnan(scores.values[2]).all()


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 60))
def test_subsets_are_distinct_and_of_their_size(n, size, wanted):
    size = min(size, n)
    rows = subsets_of_size(n, size, wanted, np.random.default_rng(0))
    assert (rows.sum(axis=1) == size).all()
    assert len(np.unique(rows, axis=0)) == len(rows)


@pytest.mark.parametrize("options", [{"max_removed": 0}, {"num_nonzeros": 0}, {"samples": 0}])
def test_it_says_what_it_accepts(options):
    with pytest.raises(ConfigError, match="not 0"):
        CLime(**options)


def test_every_unit_must_be_removed_alone():
    with pytest.raises(BudgetTooSmallError, match="c-lime needs 20 calls for 10 units"):
        play(CLime(), lambda rows: rows[:, 0], 10, max_calls=19)
