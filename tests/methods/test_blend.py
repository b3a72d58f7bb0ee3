# SPDX-License-Identifier: Apache-2.0
"""The averaged fit and its spike-and-slab part, against scikit-learn, scipy and derivatives."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LassoCV, RidgeCV

from pizza.methods._designs.halves import Draws
from pizza.methods._fits.blend import blend, extend, stack
from pizza.methods._fits.spike_slab import left_out


def signs(m, n, seed=0):
    return Draws(n, np.random.default_rng(seed)).halves(m) - 0.5


def sparse(n, k, seed=0):
    rng = np.random.default_rng(seed)
    weights = np.zeros(n)
    weights[rng.choice(n, k, replace=False)] = rng.normal(size=k)
    return weights


@pytest.mark.parametrize(("m", "n", "k"), [(100, 200, 6), (160, 1000, 8), (80, 40, 40)])
@pytest.mark.parametrize("intercept", [True, False])
def test_a_linear_game_is_recovered(m, n, k, intercept):
    x, weights = signs(m, n), sparse(n, k)
    found = blend(x, (x @ weights + (3.0 if intercept else 0.0))[:, None], intercept=intercept)
    np.testing.assert_allclose(found.weights[0], weights, atol=1e-4)
    assert found.intercepts[0] == pytest.approx(3.0 if intercept else 0.0, abs=1e-4)
    assert found.cv_r2 > 0.9999


def test_where_few_units_matter_and_where_all_do_it_is_as_good_as_the_better_peer():
    ratios = {8: [], 160: []}
    for k, each in ratios.items():
        for seed in range(10):
            x, noise = 2 * signs(80, 160, seed), 0.3 * np.random.default_rng(seed).normal(size=80)
            weights = sparse(160, k, seed)
            y = x @ weights + noise
            peers = LassoCV(cv=5, max_iter=20_000), RidgeCV(np.geomspace(0.1, 1000, 20))
            best = min(((peer.fit(x, y).coef_ - weights) ** 2).sum() for peer in peers)
            each.append(((blend(x, y[:, None]).weights[0] - weights) ** 2).sum() / best)
    assert np.mean(ratios[8]) < 0.7
    assert np.mean(ratios[160]) < 1.1


def test_degrees_of_freedom_are_the_derivatives_of_the_fit():
    x = signs(60, 30)
    rng = np.random.default_rng(1)
    y = (x @ sparse(30, 5) + 0.5 * rng.normal(size=60))[:, None]
    found = blend(x, y, intercept=False)

    def fitted(values):
        return x @ extend(found, x, values, intercept=False).weights[0]

    step = 1e-3
    slopes = []
    for row in range(60):
        up, down = y.copy(), y.copy()
        up[row] += step
        down[row] -= step
        slopes.append((fitted(up) - fitted(down))[row] / (2 * step))
    # Priors are learnt and penalties scale with the values, which the count leaves out.
    assert found.freedom[0] == pytest.approx(sum(slopes), rel=0.25)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000))
def test_shares_are_those_of_a_general_optimiser(seed):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=20)
    predicted = y[:, None] + rng.normal(size=(20, 3)) * rng.uniform(0.2, 2.0, size=3)
    equal = np.full(3, 1 / 3)
    least = ((predicted - y[:, None]) ** 2).mean(axis=0).min()

    def loss(a):
        return ((y - predicted @ a) ** 2).sum() + least / 0.2**2 * ((a - equal) ** 2).sum()

    theirs = minimize(
        loss,
        equal,
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    ours = stack(predicted, y)
    assert loss(ours) <= theirs.fun * (1 + 1e-6)
    assert ours.sum() == pytest.approx(1.0)
    assert (ours >= 0).all()


def test_a_fit_that_predicts_exactly_is_the_whole_blend():
    y = np.arange(10.0)
    shares = stack(np.column_stack([y, y + 1.0, -y]), y)
    np.testing.assert_allclose(shares, [1.0, 0.0, 0.0], atol=1e-12)


def test_without_evidence_the_shares_are_equal():
    np.testing.assert_allclose(stack(np.ones((5, 3)), np.zeros(5)), [1 / 3] * 3, atol=1e-12)


def test_held_out_predictions_do_not_know_their_row():
    x = signs(40, 10)
    y = x @ sparse(10, 10)
    changed = y.copy()
    changed[7] += 100.0
    assert left_out(x, changed, True)[7] == pytest.approx(left_out(x, y, True)[7])


def test_columns_are_fitted_alike_and_miss_only_their_own_rows():
    x, weights = signs(80, 30), sparse(30, 4)
    lead = x @ weights + 0.1 * np.random.default_rng(0).normal(size=80)
    y = np.column_stack([lead, 3 * lead, lead, np.full(80, np.nan)])
    y[::4, 2] = np.nan
    found = blend(x, y)
    np.testing.assert_allclose(found.weights[1], 3 * found.weights[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.weights[2], weights, atol=0.2)
    assert not np.array_equal(found.weights[2], found.weights[0])
    assert np.isnan(found.weights[3]).all()
    assert np.isnan(found.freedom[3])


def test_rows_that_are_not_known_are_as_good_as_absent():
    x = signs(50, 12)
    y = (x @ sparse(12, 3))[:, None]
    y[20:] = np.nan
    found, short = blend(x, y), blend(x[:20], y[:20])
    np.testing.assert_array_equal(found.weights, short.weights)
    assert np.isnan(found.held_out[20:]).all()


@pytest.mark.parametrize("intercept", [True, False])
def test_constants_copies_and_idle_units_give_finite_weights(intercept):
    x = signs(40, 6)
    x[:, 1] = x[:, 0]
    x[:, 2] = 0.5
    constant = blend(x, np.zeros((40, 2)), intercept=intercept)
    assert (constant.weights == 0).all()
    found = blend(x, x[:, [0]] * 2.0, intercept=True)
    assert np.isfinite(found.weights).all()
    assert found.weights[0, :2].sum() == pytest.approx(2.0, abs=0.1)
    assert found.weights[0, 2] == 0.0


def test_where_message_passing_diverges_ridge_answers():
    # Columns that are nearly one: what the iteration is not made for.
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 1))
    x = base + 1e-3 * rng.normal(size=(40, 60))
    found = blend(x, base)
    assert np.isfinite(found.weights).all()
    only = replace(found, shares={"spike-slab": 1.0})
    assert np.isfinite(extend(only, x, base).weights).all()
    assert found.cv_r2 > 0.99


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 50))
def test_a_handful_of_rows_is_no_reason_to_fail(m, n, seed):
    rng = np.random.default_rng(seed)
    x = (rng.random((m, n)) < 0.5) - 0.5
    found = blend(x, rng.normal(size=(m, 2)))
    assert np.isfinite(found.weights).all() or m < 2
    assert sum(found.shares.values()) == pytest.approx(1.0)


def test_memory_is_linear_in_units():
    # 10,000 units: an n x n array would be 800 MB.
    x = np.random.default_rng(0).random((40, 10_000)) - 0.5
    tracemalloc.start()
    found = blend(x, x[:, :2])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isfinite(found.weights).all()
    assert peak < 100e6
