# SPDX-License-Identifier: Apache-2.0
"""ContextCite: scikit-learn's LASSO at a fixed penalty, consistency with a chosen one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso
from support.games_known import Known, exact_banzhaf, play, random_moebius, relative_error

from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.methods.context_cite import ContextCite


def test_the_fixed_penalty_is_the_originals():
    game = Known(random_moebius(30, 6, 0))
    scores, asked = play(ContextCite(alpha=0.01), game, 30)
    assert len(asked) == 64
    values = game(asked) - game(np.ones((1, 30), dtype=bool))
    scale = asked.std(axis=0)
    theirs = Lasso(alpha=0.01, tol=1e-10).fit((asked - asked.mean(axis=0)) / scale, values)
    np.testing.assert_allclose(scores.values[0], theirs.coef_ / scale, atol=2e-3)
    assert scores.details["alpha"] == 0.01


def test_a_chosen_penalty_is_at_least_as_near_to_the_truth():
    errors = {None: [], 0.01: []}
    for seed in range(6):
        game = Known(random_moebius(60, 8, seed), seed=seed)
        for alpha, found in errors.items():
            scores, _ = play(ContextCite(samples=100, alpha=alpha), game, 60, seed=seed)
            found.append(relative_error(scores.values[0], game.banzhaf()))
    assert np.median(errors[None]) < 0.15
    assert np.median(errors[None]) < np.median(errors[0.01])


def test_it_converges_to_the_banzhaf_values():
    game = Known(random_moebius(20, 6, 1))
    scores, _ = play(ContextCite(samples=2000), game, 20)
    assert relative_error(scores.values[0], game.banzhaf()) < 0.003
    assert scores.details["cv_r2"] > 0.8


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(0, 100))
def test_all_coalitions_give_the_exact_banzhaf_values(n, seed):
    values = np.random.default_rng(seed).normal(size=2**n)
    game = lambda rows: values[rows @ (1 << np.arange(n))]  # noqa: E731
    scores, asked = play(ContextCite(), game, n)
    assert len(asked) == 2**n - 1
    np.testing.assert_allclose(scores.values[0], exact_banzhaf(game, n), atol=1e-12)


def test_a_few_of_a_thousand_units_are_found_with_128_calls():
    weights = np.zeros(1000)
    weights[[10, 500, 900]] = 3.0, -2.0, 1.0
    scores, asked = play(ContextCite(samples=128), lambda rows: rows @ weights, 1000)
    assert len(asked) == 128
    assert set(np.argsort(-np.abs(scores.values[0]))[:3]) == {10, 500, 900}
    assert relative_error(scores.values[0], weights) < 0.01


def test_columns_are_fitted_each_for_itself():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(10, 2)) * [1.0, 100.0]
    both, _ = play(ContextCite(), lambda rows: rows @ weights, 10)
    # The second column is the first one's design with its own values, whatever their scale.
    np.testing.assert_allclose(both.values[1], weights[:, 1], rtol=0.05, atol=4.0)
    one, _ = play(ContextCite(), lambda rows: rows @ weights[:, 0], 10)
    np.testing.assert_allclose(both.values[0], one.values[0], rtol=1e-9)


@pytest.mark.parametrize("alpha", [None, 0.01])
def test_a_constant_game_scores_zero_and_an_unknown_column_nothing(alpha):
    def value(rows):
        return np.column_stack([np.full(len(rows), -1.5), np.full(len(rows), np.nan)])

    scores, _ = play(ContextCite(alpha=alpha), value, 12)
    assert scores.values[0].tolist() == [0.0] * 12
    assert np.isnan(scores.values[1]).all()


def test_failed_coalitions_are_left_out():
    weights = np.arange(10.0)

    def value(rows):
        values = rows @ weights
        # Known for the whole prompt, unknown for about a sixth of the rest.
        values[(rows[:, 3] & ~rows[:, 4] & rows[:, 5])] = np.nan
        return values

    scores, _ = play(ContextCite(samples=100), value, 10)
    np.testing.assert_allclose(scores.values[0], weights, atol=0.2)
    assert scores.details["undefined"] > 0


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_it_says_what_it_accepts(alpha):
    with pytest.raises(ConfigError, match="alpha"):
        ContextCite(alpha=alpha)


def test_too_small_a_budget_is_refused():
    with pytest.raises(BudgetTooSmallError, match="context-cite needs 8 calls"):
        play(ContextCite(), lambda rows: rows[:, 0], 100, max_calls=7)
