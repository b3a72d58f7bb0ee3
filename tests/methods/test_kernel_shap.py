# SPDX-License-Identifier: Apache-2.0
"""KernelSHAP: the fit is the weighted least squares that it says it is."""

from math import comb

import numpy as np
import pytest
from support.games_known import (
    Known,
    every,
    play,
    random_moebius,
    relative_error,
    shapley_weight,
)

from pizza.errors import BudgetTooSmallError
from pizza.methods._designs.pairs import draw_pairs, kernel_masses
from pizza.methods.kernel_shap import KernelShap

N = 9


@pytest.fixture(name="drawn")
def _drawn():
    """A game, the coalitions that were asked for, their weights by the design, the scores."""
    value = Known(random_moebius(N, 6, 1))
    scores, asked = play(KernelShap(samples=81), value, N, seed=3)
    asked = asked[1:]
    pairs = draw_pairs(N, 40, kernel_masses(N), np.random.default_rng(3))
    np.testing.assert_array_equal(asked, pairs.round()[1:])
    # k(S) / P(S): the design draws all sizes that it does not enumerate in proportion to k.
    size_of = asked.sum(axis=1)
    kernel = np.array([shapley_weight(N, int(s)) for s in size_of])
    per_size = {s: (size_of == s).sum() for s in range(1, N)}
    whole = np.array([per_size[s] == comb(N, int(s)) for s in size_of])
    rest = sum((N - 1) / (s * (N - s)) for s in range(1, N) if per_size[s] < comb(N, s))
    weights = np.where(whole, kernel, rest / (~whole).sum())
    return value, asked, weights, scores.values[0]


def test_the_fit_is_scikit_learns_weighted_regression_on_the_same_coalitions(drawn):
    linear_model = pytest.importorskip("sklearn.linear_model")
    value, asked, weights, scores = drawn
    v = value(asked)
    none, whole = value(np.array([[False] * N, [True] * N]))
    # The last unit is what the others leave of the total.
    left = v - none - asked[:, -1] * (whole - none)
    design = asked[:, :-1].astype(float) - asked[:, -1:]
    fit = linear_model.LinearRegression(fit_intercept=False).fit(design, left, weights)
    expected = np.append(fit.coef_, whole - none - fit.coef_.sum())
    np.testing.assert_allclose(scores, expected, atol=1e-10)


@pytest.mark.peers
def test_the_fit_is_shapiqs_on_the_same_coalitions(drawn):
    base = pytest.importorskip("shapiq.approximator.regression.base")
    value, asked, weights, scores = drawn
    rows = np.concatenate([asked, every(N)[[0, -1]]])
    design = np.column_stack([np.ones(len(rows)), rows])
    theirs = base.solve_regression(design, value(rows), np.append(weights, [1e8, 1e8]))
    np.testing.assert_allclose(scores, theirs[1:], atol=1e-5)


@pytest.mark.peers
def test_shapiq_agrees_when_all_coalitions_are_known():
    shapiq = pytest.importorskip("shapiq")
    value = Known(random_moebius(7, 6, 2))
    theirs = shapiq.KernelSHAP(n=7, random_state=0).approximate(2**7, value)
    scores, _ = play(KernelShap(samples=127), value, 7)
    np.testing.assert_allclose(scores.values[0], theirs.get_n_order_values(1), atol=1e-5)


def test_more_coalitions_bring_it_nearer():
    def errors(samples):
        games = [Known(random_moebius(16, 8, seed), seed=seed) for seed in range(5)]
        return np.median(
            [
                relative_error(play(KernelShap(samples), game, 16)[0].values[0], game.shapley())
                for game in games
            ]
        )

    coarse, fine = errors(101), errors(801)
    assert coarse < 0.15
    assert fine < coarse / 5


def test_standard_errors_are_the_spread_over_seeds():
    game = Known(random_moebius(12, 6, 3), noise=0.0)
    runs = [play(KernelShap(samples=161), game, 12, seed=seed)[0] for seed in range(60)]
    spread = np.std([run.values[0] for run in runs], axis=0)
    told = np.sqrt(np.mean([run.standard_errors[0] ** 2 for run in runs], axis=0))
    np.testing.assert_allclose(told, spread, rtol=0.45)
    bias = np.mean([run.values[0] for run in runs], axis=0) - game.shapley()
    assert np.abs(bias).max() < 4 * spread.max() / np.sqrt(60)


def test_standard_errors_are_the_leverage_corrected_sandwich():
    n, value = 8, Known(random_moebius(8, 6, 1))
    scores, _ = play(KernelShap(samples=81), value, n, seed=2)
    pairs = draw_pairs(n, 40, kernel_masses(n), np.random.default_rng(2))
    odd = (value(pairs.present) - value(~pairs.present)) / 2
    design = pairs.present - 0.5
    weights = np.diag(pairs.mass)
    centred = design @ (np.eye(n) - 1 / n)
    bread = np.linalg.pinv(centred.T @ weights @ centred)
    leverage = np.diag(centred @ bread @ centred.T @ weights)
    residuals = (odd - design @ scores.values[0]) / (1 - leverage)
    meat = centred.T @ np.diag((pairs.mass * residuals) ** 2 * (1 - pairs.share)) @ centred
    expected = np.sqrt(np.diag(bread @ meat @ bread))
    np.testing.assert_allclose(scores.standard_errors[0], expected, rtol=1e-9)
    assert expected.min() > 0


def test_no_standard_errors_where_residuals_tell_nothing():
    scores, _ = play(KernelShap(samples=2 * 12 + 1), Known(random_moebius(12, 6, 3)), 12)
    assert scores.standard_errors is None
    assert scores.details["rank"] == 11


def test_without_the_value_of_nothing_the_pairs_decide_alone():
    weights = np.arange(6.0)

    def value(rows):
        return np.where(rows.any(axis=1), rows @ weights, np.nan)

    scores, _ = play(KernelShap(samples=41), value, 6)
    np.testing.assert_allclose(scores.values[0], weights, atol=1e-10)


def test_it_needs_as_many_pairs_as_it_has_unknowns():
    with pytest.raises(BudgetTooSmallError, match=r"needs 39 calls for 20 units .*'context-cite'"):
        play(KernelShap(), Known(random_moebius(20, 4, 0)), 20, max_calls=38)


def test_details_say_which_sizes_were_enumerated():
    scores, _ = play(KernelShap(samples=121), Known(random_moebius(12, 6, 3)), 12)
    assert scores.details["enumerated_sizes"] == [1]
    assert scores.details["pairs_of_size"]["1"] == 12
    assert sum(scores.details["pairs_of_size"].values()) == 60
