# SPDX-License-Identifier: Apache-2.0
"""The regression core against scikit-learn and against closed forms."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso, LassoCV, LinearRegression, Ridge
from support.games_known import Known, calibrated, every, random_moebius

from pizza.methods._designs.halves import Draws
from pizza.methods._fits import intervals, penalties, regression
from pizza.methods._fits.blend import blend
from pizza.methods._fits.quality import quality, rank_correlation
from pizza.methods._fits.regression import fit, least_squares, solve_columns


def halves(m, n, seed=0):
    return Draws(n, np.random.default_rng(seed)).halves(m)


@pytest.fixture
def sample():
    rng = np.random.default_rng(3)
    x = (rng.random((60, 12)) < 0.5).astype(float)
    y = x @ rng.normal(size=(12, 3)) + 0.3 * rng.normal(size=(60, 3)) + 2.0
    return x, y


@pytest.mark.parametrize("columns", [12, 5])
@pytest.mark.parametrize("rows", [60, 8])
def test_ridge_is_scikit_learns_on_either_side_of_square(sample, rows, columns):
    x, y = sample[0][:rows, :columns], sample[1][:rows]
    w = np.linspace(0.2, 2.0, rows)
    ours, offsets = solve_columns(x, y, "ridge", 0.7, row_weights=w, standardise=False)
    theirs = Ridge(alpha=0.7).fit(x, y, sample_weight=w)
    np.testing.assert_allclose(ours, theirs.coef_, atol=1e-9)
    np.testing.assert_allclose(offsets, theirs.intercept_, atol=1e-9)


def test_a_fixed_lasso_is_scikit_learns_on_standardised_units(sample):
    x, y = sample
    ours, _ = solve_columns(x, y, "lasso", 0.05, relative=False)
    scaled = (x - x.mean(0)) / x.std(0)
    for column in range(3):
        theirs = Lasso(alpha=0.05, tol=1e-10).fit(scaled, y[:, column]).coef_ / x.std(0)
        np.testing.assert_allclose(ours[column], theirs, atol=1e-3)
        assert ((ours[column] == 0) == (theirs == 0)).all()


def test_the_penalty_is_about_the_one_of_lasso_cv(sample):
    x, y = sample
    scaled = (x - x.mean(0)) / x.std(0)
    theirs = LassoCV(cv=5).fit(scaled, y[:, 0])
    ours = fit(x, y, kinds=("lasso",))
    # Other folds and another grid: the same fit to a few per cent.
    error = np.linalg.norm(ours.weights[0] * x.std(0) - theirs.coef_) / np.linalg.norm(theirs.coef_)
    assert error < 0.05


def test_ridge_cross_validation_without_refits_equals_refits(sample):
    x, y = sample[0], sample[1][:, 0]
    w = np.linspace(0.5, 1.5, 60)
    penalty, held_out = penalties.choose_ridge(x, y, w, True)
    scaled = penalties.scaled_design(x, w, True)
    standard = (x - scaled.mean) / scaled.scale
    part = penalties.parts(60)
    weights = w / w.mean()
    for turn in range(5):
        model = Ridge(alpha=penalty).fit(
            standard[part != turn], y[part != turn], sample_weight=weights[part != turn]
        )
        np.testing.assert_allclose(held_out[part == turn], model.predict(standard[part == turn]))


def test_least_squares_recovers_a_linear_game_and_says_what_it_cannot_know():
    rows = every(4)[[1, 3, 5, 7, 9, 11]]  # unit 0 is always present
    values = rows @ np.array([[1.0], [2.0], [-3.0], [0.5]])
    weights = least_squares(rows, values)[0]
    assert np.isnan(weights[0])
    np.testing.assert_allclose(weights[1:], [2.0, -3.0, 0.5], atol=1e-12)


def test_each_column_uses_the_rows_that_it_knows(sample):
    x, y = sample
    y = y.copy()
    y[::3, 1] = np.nan
    y[:, 2] = np.nan
    weights = least_squares(x, y)
    expected = LinearRegression().fit(x[np.arange(60) % 3 > 0], y[np.arange(60) % 3 > 0, 1])
    np.testing.assert_allclose(weights[1], expected.coef_, atol=1e-10)
    assert np.isnan(weights[2]).all()
    assert np.isfinite(weights[0]).all()


def test_when_column_zero_is_unknown_another_one_decides(sample):
    x, y = sample
    y = np.column_stack([np.full(60, np.nan), y[:, 0]])
    found = fit(x, y)
    assert np.isnan(found.weights[0]).all()
    np.testing.assert_array_equal(found.weights[1], fit(x, y[:, 1:]).weights[0])
    assert np.isnan(found.held_out).all()


@pytest.mark.parametrize("kinds", [("lasso",), ("ridge",), ("lasso", "ridge")])
@pytest.mark.parametrize("intercept", [True, False])
def test_constants_copies_and_idle_units_give_finite_weights(kinds, intercept):
    rows = halves(40, 6).astype(float)
    rows[:, 1] = rows[:, 0]  # a copy
    rows[:, 2] = 1.0  # never absent
    constant = fit(rows, np.full((40, 1), 0.0), kinds=kinds, intercept=intercept)
    assert constant.weights.tolist() == [[0.0] * 6]
    found = fit(rows, rows[:, [0]] * 2.0, kinds=kinds, intercept=True)
    assert np.isfinite(found.weights).all()
    assert found.weights[0, :2].sum() == pytest.approx(2.0, abs=0.1)
    assert found.weights[0, 2] == 0.0


@settings(deadline=None)
@given(st.integers(1, 3))
def test_a_handful_of_rows_is_no_reason_to_fail(m):
    found = fit(np.eye(3, 5)[:m], np.arange(m, dtype=float)[:, None])
    assert np.isfinite(found.weights).all() or m == 1
    assert np.isnan(found.cv_r2)


def test_scaling_the_values_scales_the_weights():
    rows = halves(50, 20)
    game = Known(random_moebius(20, 5, 1))
    values = game(rows)[:, None]
    np.testing.assert_allclose(
        fit(rows, 1000.0 * values).weights, 1000.0 * fit(rows, values).weights, rtol=1e-6, atol=1e-6
    )


def test_sparse_games_get_a_lasso_and_dense_ones_a_ridge():
    rng = np.random.default_rng(0)
    rows = halves(60, 100)
    sparse, dense = np.zeros(100), rng.normal(size=100)
    sparse[:4] = 1.0
    assert fit(rows, (rows @ sparse)[:, None]).kind == "lasso"
    assert fit(rows, (rows @ dense)[:, None]).kind == "ridge"


def test_hc3_is_the_textbook_sandwich(sample):
    x, y = sample
    a = x - 0.5
    weights, errors = intervals.ols_hc3(a, y)
    inverse = np.linalg.inv(a.T @ a)
    leverage = np.diag(a @ inverse @ a.T)
    for column in range(3):
        w = inverse @ a.T @ y[:, column]
        e = (y[:, column] - a @ w) / (1 - leverage)
        covariance = inverse @ a.T @ np.diag(e**2) @ a @ inverse
        np.testing.assert_allclose(weights[column], w, atol=1e-10)
        np.testing.assert_allclose(errors[column], np.sqrt(np.diag(covariance)), atol=1e-10)


def test_the_debiased_step_is_its_formula(sample):
    a, y = sample[0] - 0.5, sample[1]
    w = fit(a, y, kinds=("lasso",), intercept=False).weights
    b, se = intervals.debiased(a, y, w, 1.3)
    r = y[:, 0] - a @ w[0]
    i = 4
    assert b[0, i] == pytest.approx(w[0, i] + a[:, i] @ r / (a[:, i] @ a[:, i]))
    assert se[0, i] ** 2 == pytest.approx(1.3 * (a[:, i] ** 2 @ r**2) / (a[:, i] @ a[:, i]) ** 2)


def test_errors_are_raised_to_those_of_rows_left_out(sample):
    a, y = sample[0] - 0.5, sample[1]
    found = fit(a, y, intercept=False)
    fitted = ((y[:, 0] - a @ found.weights[0]) ** 2).sum()
    left_out = ((y[:, 0] - found.held_out) ** 2).sum()
    assert left_out > 1.1 * fitted
    assert intervals.inflation(a, y[:, 0], found) == pytest.approx(left_out / fitted)


def test_least_squares_is_taken_when_its_errors_are_smaller():
    a = halves(40, 8) - 0.5
    exact = a @ np.ones((8, 1))
    # A fit that is off, so that its residuals are not nothing as those of least squares are.
    found = replace(blend(a, exact, intercept=False), weights=np.full((1, 8), 0.9))
    estimates, _, way = intervals.of_blend(a, exact, found, intercept=False)
    assert way == "ols-hc3"
    np.testing.assert_allclose(estimates, np.ones((1, 8)), atol=1e-12)


def test_copies_have_no_error_of_least_squares():
    a = halves(30, 4) - 0.5
    a[:, 1] = a[:, 0]
    assert np.isnan(intervals.ols_hc3(a, a[:, [2]])[1]).all()


def covered(n, k, calls, seeds, *, paired):
    """Shares of intervals of relevant and of null units that hold the Banzhaf values."""
    inside = {True: [], False: []}
    for seed in range(seeds):
        game = calibrated(n, k, seed)
        draws = Draws(n, np.random.default_rng(seed))
        rows = draws.pairs(calls // 2) if paired else draws.halves(calls)
        values = (game(rows) - game(~rows)) / 2 if paired else game(rows)
        a, y = rows - 0.5, values[:, None]
        found = blend(a, y, intercept=not paired)
        estimates, errors, _ = intervals.of_blend(a, y, found, intercept=not paired)
        truth = game.banzhaf()
        for is_null, each in inside.items():
            chosen = (truth == 0) == is_null
            each.append(np.abs(estimates[0] - truth)[chosen] < 1.645 * errors[0, chosen])
    return [np.concatenate(inside[is_null]).mean() for is_null in (False, True)]


@pytest.mark.parametrize(
    ("n", "k", "calls", "paired"),
    [(20, 10, 160, True), (20, 10, 320, True), (60, 8, 160, True), (60, 8, 100, False)],
)
def test_intervals_cover_units_with_and_without_effect_as_often_as_they_say(n, k, calls, paired):
    # 160 intervals of 90 % and more: three standard deviations are 0.07.
    for share in covered(n, k, calls, 20, paired=paired):
        assert 0.83 <= share <= 0.97


def test_degrees_of_freedom_are_taken_from_the_residuals(sample):
    a, y = sample[0] - 0.5, sample[1]
    w = fit(a, y, kinds=("lasso",), intercept=False).weights
    b, se = intervals.debiased(a, y, w, freedom=np.full(3, 15.0))
    plain, plain_se = intervals.debiased(a, y, w)
    np.testing.assert_allclose(b - w, (plain - w) * 60 / 45)
    np.testing.assert_allclose(se, plain_se * 60 / 45)


def test_relevant_units_carry_the_squares():
    assert intervals.relevant(np.zeros(5)) == 0
    assert intervals.relevant(np.array([3.0, 0.1, 0.1, 0.1])) == 1
    assert intervals.relevant(np.ones(100)) == 95


def test_draws_never_repeat_and_never_return_the_whole_prompt():
    for n, wanted in ((3, 100), (6, 40), (40, 100)):
        draws = Draws(n, np.random.default_rng(0))
        rows = np.vstack([draws.halves(wanted // 2), draws.halves(wanted - wanted // 2)])
        assert len(np.unique(rows, axis=0)) == len(rows) == min(wanted, 2**n - 1)
        assert not rows.all(axis=1).any()


def test_pairs_never_repeat_either():
    for n, wanted in ((3, 50), (5, 10), (40, 50)):
        first = Draws(n, np.random.default_rng(0)).pairs(wanted)
        both = np.vstack([first, ~first])
        assert len(np.unique(both, axis=0)) == len(both) == min(2 * wanted, 2**n - 2)


def test_waves_of_any_size_draw_the_same_coalitions():
    one, four = (Draws(30, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(
        one.halves(40), np.vstack([four.halves(7), four.halves(1), four.halves(30), four.halves(2)])
    )


def test_rank_correlation_is_scipys():
    scipy_stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 50).astype(float), rng.normal(size=50)
    b += a
    assert rank_correlation(a, b) == pytest.approx(scipy_stats.spearmanr(a, b).statistic)
    assert np.isnan(rank_correlation(np.ones(4), b[:4]))


def test_quality_on_held_out_calls_foretells_that_on_fresh_ones():
    game = Known(random_moebius(30, 8, 2))
    rows = halves(240, 30)
    values = game(rows)
    found = fit(rows, values[:, None])
    said = quality(found.held_out, values, found.cv_r2, paired=False)
    fresh = halves(400, 30, seed=9)
    assert said["lds"] == pytest.approx(
        rank_correlation(fresh @ found.weights[0], game(fresh)), abs=0.05
    )
    truth = game(fresh)
    predicted = fresh @ found.weights[0] + found.intercepts[0]
    r2 = 1 - ((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert said["r2"] == pytest.approx(r2, abs=0.08)
    assert said["warning"] is None


def test_fitting_noise_is_called_noise():
    rng = np.random.default_rng(0)
    rows = halves(60, 40)
    noise = rng.normal(size=60)
    found = fit(rows, noise[:, None])
    said = quality(found.held_out, noise, found.cv_r2, paired=False)
    assert "budget too small" in said["warning"]
    assert "coarsen" in said["warning"]
    assert said["r2"] < 0.2


@pytest.mark.parametrize(("m", "warns"), [(24, True), (600, False)])
@pytest.mark.parametrize("paired", [True, False])
def test_few_rows_that_happen_to_be_predicted_are_not_taken_for_a_good_fit(m, warns, paired):
    # Predictions that explain 0.36: more than a fifth, which few rows cannot tell.
    rng = np.random.default_rng(2)
    guess, rest = np.linalg.qr(rng.normal(size=(m, 2)))[0].T
    values, predicted = 0.6 * guess + 0.8 * rest, 0.6 * guess
    r2 = 0.36
    both = np.concatenate([values, -values]) if paired else values
    said = quality(predicted, both, r2, paired=paired)["warning"] or ""
    assert ("budget too small" in said) == warns


def test_the_core_needs_no_square_of_the_units():
    # 10,000 units: an n x n array would be 800 MB.
    import tracemalloc

    rng = np.random.default_rng(0)
    rows = rng.random((40, 10_000)) < 0.5
    values = (rows[:, :3].sum(axis=1) * 1.0)[:, None]
    tracemalloc.start()
    found = fit(rows, values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isfinite(found.weights).all()
    assert peak < 100e6
    assert regression.fit is fit
