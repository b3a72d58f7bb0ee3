# SPDX-License-Identifier: Apache-2.0
"""Sparse Shapley regression: exact with all pairs, efficient always, accurate with few."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.games_known import Known, exact_shapley, play, random_moebius, relative_error

from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.methods.kernel_shap import KernelShap
from pizza.methods.paired_sparse_shap import PairedSparseShap


@settings(deadline=None)
@given(st.integers(1, 7), st.integers(0, 100))
def test_all_coalitions_give_the_exact_shapley_values(n, seed):
    values = np.random.default_rng(seed).normal(size=2**n)
    game = lambda rows: values[rows @ (1 << np.arange(n))]  # noqa: E731
    scores, asked = play(PairedSparseShap(samples=2**n), game, n)
    assert len(asked) == 2**n - 1
    np.testing.assert_allclose(scores.values[0], exact_shapley(game, n), atol=1e-11)


@settings(deadline=None, max_examples=30)
@given(st.integers(12, 60), st.integers(0, 50), st.integers(9, 90))
def test_scores_sum_to_the_whole_less_nothing(n, seed, samples):
    game = Known(random_moebius(n, 6, seed), seed=seed)
    scores, asked = play(PairedSparseShap(samples=samples), game, n)
    ends = game(np.array([[False] * n, [True] * n]))
    assert scores.values.sum() == pytest.approx(ends[1] - ends[0], abs=1e-9)
    assert len(asked) == samples - 1 + samples % 2


@pytest.mark.parametrize(("n", "k", "calls", "most"), [(20, 10, 80, 0.08), (100, 14, 256, 0.06)])
def test_few_calls_find_the_shapley_values_of_few_units(n, k, calls, most):
    ours, plain = [], []
    for seed in range(5):
        game = Known(random_moebius(n, k, seed), seed=seed)
        truth = game.shapley()
        scores, _ = play(PairedSparseShap(), game, n, max_calls=calls, seed=seed)
        ours.append(relative_error(scores.values[0], truth))
        scores, _ = play(KernelShap(), game, n, max_calls=calls, seed=seed)
        plain.append(relative_error(scores.values[0], truth))
    assert np.median(ours) < most
    assert np.median(ours) < np.median(plain)


def test_it_converges():
    game = Known(random_moebius(20, 8, 3), noise=0.0)
    scores, _ = play(PairedSparseShap(samples=3001), game, 20)
    assert relative_error(scores.values[0], game.shapley()) < 1e-3


def test_a_linear_game_is_recovered():
    weights = np.zeros(40)
    weights[[1, 7, 30]] = 2.0, -1.0, 3.0
    scores, _ = play(PairedSparseShap(samples=101), lambda rows: rows @ weights, 40)
    np.testing.assert_allclose(scores.values[0], weights, atol=1e-3)
    assert scores.standard_errors is None
    assert scores.details["index"] == "shapley"
    assert scores.details["quality"]["r2"] > 0.95


def test_a_constant_game_scores_zero():
    scores, _ = play(PairedSparseShap(samples=41), lambda rows: np.full(len(rows), 9.0), 30)
    assert (scores.values == 0).all()


def test_what_is_unknown_is_left_out_of_its_column():
    weights = np.zeros(15)
    weights[[2, 9]] = 2.0, -1.0

    def value(rows):
        sums = rows @ weights
        without_none = np.where(rows.any(axis=1), sums, np.nan)
        return np.column_stack([sums, without_none, np.full(len(rows), np.nan)])

    scores, _ = play(PairedSparseShap(samples=101), value, 15)
    np.testing.assert_allclose(scores.values[0], weights, atol=1e-3)
    np.testing.assert_allclose(scores.values[1], weights, atol=1e-2)
    assert np.isnan(scores.values[2]).all()


def test_too_little_is_refused():
    with pytest.raises(BudgetTooSmallError, match="paired-sparse-shap needs 9 calls"):
        play(PairedSparseShap(), lambda rows: rows[:, 0], 100, max_calls=8)
    with pytest.raises(ConfigError, match="not 0"):
        PairedSparseShap(samples=0)
