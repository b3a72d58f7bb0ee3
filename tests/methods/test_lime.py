# SPDX-License-Identifier: Apache-2.0
"""LIME against scikit-learn's weighted regressions on the same coalitions."""

import numpy as np
import pytest
from sklearn.linear_model import Lasso, Ridge
from support.games_known import Known, play, random_moebius, relative_error

from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.methods.lime import Lime


def rows_and_values(game, asked):
    rows = np.vstack([asked, np.ones((1, asked.shape[1]), dtype=bool)])
    return rows, game(rows) - game(rows[-1:])


def kernel(rows, width):
    return np.exp(-((1 - np.sqrt(rows.mean(axis=1))) ** 2) / width**2)


@pytest.mark.parametrize("width", [0.1, 0.25 * np.sqrt(2)])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_ridge_is_the_weighted_ridge_of_the_text_explainer(alpha, width):
    game = Known(random_moebius(15, 5, 0))
    scores, asked = play(Lime(samples=70, alpha=alpha, width=width), game, 15)
    rows, values = rows_and_values(game, asked)
    theirs = Ridge(alpha=alpha).fit(rows, values, sample_weight=kernel(rows, width))
    np.testing.assert_allclose(scores.values[0], theirs.coef_, atol=1e-9)


def test_the_default_kernel_is_limes():
    # LIME: sqrt(exp(-d**2 / 25**2)) with d = 100 times the cosine distance.
    game = Known(random_moebius(15, 5, 0))
    scores, asked = play(Lime(samples=70, alpha=1.0), game, 15)
    rows, values = rows_and_values(game, asked)
    whole = np.ones(15)
    cosine = rows @ whole / np.maximum(np.linalg.norm(rows, axis=1) * np.linalg.norm(whole), 1e-12)
    weights = np.sqrt(np.exp(-((100 * (1 - cosine)) ** 2) / 25**2))
    theirs = Ridge(alpha=1.0).fit(rows, values, sample_weight=weights)
    np.testing.assert_allclose(scores.values[0], theirs.coef_, atol=1e-9)


def test_lasso_is_scikit_learns_on_standardised_units():
    game = Known(random_moebius(15, 5, 0))
    scores, asked = play(Lime(samples=70, regression="lasso", alpha=0.02), game, 15)
    rows, values = rows_and_values(game, asked)
    w = kernel(rows, 0.25 * np.sqrt(2))
    mean = np.average(rows, axis=0, weights=w)
    sd = np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=w))
    theirs = Lasso(alpha=0.02, tol=1e-10).fit((rows - mean) / sd, values, sample_weight=w)
    np.testing.assert_allclose(scores.values[0], theirs.coef_ / sd, atol=1e-3)


@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_a_linear_game_is_recovered_without_a_penalty(n):
    weights = np.arange(n) - 1.5
    scores, _ = play(Lime(samples=120, alpha=0.0), lambda rows: rows @ weights, n)
    np.testing.assert_allclose(scores.values[0], weights, atol=1e-9)


@pytest.mark.parametrize("n", [1, 3, 6])
def test_all_coalitions_need_no_penalty(n):
    weights = np.arange(n) - 1.5
    scores, asked = play(Lime(), lambda rows: rows @ weights, n)
    assert len(asked) == 2**n - 1
    np.testing.assert_allclose(scores.values[0], weights, atol=1e-9)


def test_it_comes_near_the_banzhaf_values_and_nearer_with_more_calls():
    game = Known(random_moebius(20, 6, 1))
    errors = [
        relative_error(play(Lime(samples=m), game, 20)[0].values[0], game.banzhaf())
        for m in (60, 1000)
    ]
    assert errors[1] < 0.03 < errors[0] < 0.3


@pytest.mark.parametrize("regression", ["ridge", "lasso"])
def test_a_constant_game_scores_zero(regression):
    scores, _ = play(Lime(samples=30, regression=regression), lambda rows: np.ones(len(rows)), 10)
    assert np.abs(scores.values).max() < 1e-12


def test_a_narrow_kernel_still_gives_numbers():
    scores, _ = play(Lime(samples=30, width=1e-3), lambda rows: rows[:, 0] * 1.0, 10)
    assert np.isfinite(scores.values).all()
    assert scores.details["effective_samples"] == pytest.approx(1.0)


def test_unknown_values_are_left_out_of_their_column():
    def value(rows):
        sums = rows @ np.arange(8.0)
        return np.column_stack([sums, np.where(np.arange(len(rows)) % 2, sums, np.nan)])

    scores, _ = play(Lime(samples=80, alpha=0.0), value, 8)
    # The whole prompt's value is known and relative to itself in both columns.
    np.testing.assert_allclose(scores.values[0], np.arange(8.0), atol=1e-9)


@pytest.mark.parametrize(
    "options", [{"regression": "ols"}, {"alpha": -1.0}, {"width": 0.0}, {"samples": 0}]
)
def test_it_says_what_it_accepts(options):
    with pytest.raises(ConfigError, match="not"):
        Lime(**options)


def test_too_small_a_budget_is_refused():
    with pytest.raises(BudgetTooSmallError, match="lime needs 8 calls"):
        play(Lime(), lambda rows: rows[:, 0], 10, max_calls=5)
