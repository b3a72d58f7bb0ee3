# SPDX-License-Identifier: Apache-2.0
"""OddSHAP: odd Fourier terms, chosen one by one, and the Shapley values that they make."""

import numpy as np
import pytest
from support.games_known import (
    Known,
    Moebius,
    every,
    exact_shapley,
    play,
    random_moebius,
    relative_error,
)

from pizza.methods.leverage_shap import LeverageShap
from pizza.methods.odd_shap import OddShap, _Model


def fourier(terms, n):
    """``v(S) = sum of beta_T chi_T(S)``."""

    def value(rows):
        signs = np.where(rows, 1.0, -1.0)
        return sum(
            (b * signs[:, list(t)].prod(axis=1) for t, b in terms.items()), np.zeros(len(rows))
        )

    return value, n


def test_a_models_values_are_the_fourier_formula():
    terms = {(0,): 1.5, (3,): -2.0, (0, 2, 3): 0.75, (1, 2, 4): -0.5}
    value, n = fourier(terms, 5)
    model = _Model([0, 3], [(0, 2, 3), (1, 2, 4)], np.array([1.5, -2.0, 0.75, -0.5]))
    np.testing.assert_allclose(model.shapley(n), exact_shapley(value, n), atol=1e-12)


def test_even_terms_have_no_shapley_values():
    value, n = fourier({(): 3.0, (0, 1): 2.0, (1, 2, 3, 4): -1.0}, 5)
    np.testing.assert_allclose(exact_shapley(value, n), 0, atol=1e-12)
    scores, _ = play(OddShap(samples=21), value, n)
    np.testing.assert_allclose(scores.values[0], 0, atol=1e-12)


def test_units_and_triples_are_found_and_fitted_exactly():
    terms = {(2,): 2.0, (7,): -1.5, (11,): 1.0, (14,): 0.8, (2, 7, 11): 0.6, (7, 11, 14): -0.5}
    even = {(2, 7): 1.0, (11, 14): -0.7}
    value, n = fourier(terms | even, 20)
    scores, _ = play(OddShap(samples=161), value, n)
    expected = _Model([2, 7, 11, 14], [(2, 7, 11), (7, 11, 14)], np.array(list(terms.values())))
    np.testing.assert_allclose(scores.values[0], expected.shapley(n), atol=1e-9)
    assert scores.details["triples"] >= 2


def test_a_sparse_linear_game_needs_fewer_calls_than_two_per_unit():
    weights = np.zeros(200)
    weights[[3, 50, 120]] = [2.0, -1.0, 4.0]
    scores, asked = play(OddShap(samples=101), lambda rows: rows @ weights, 200)
    np.testing.assert_allclose(scores.values[0], weights, atol=1e-9)
    assert len(asked) == 101


def test_each_column_has_terms_of_its_own():
    weights = np.zeros((2, 60))
    weights[0, 5], weights[1, 40] = 1.0, -3.0
    scores, _ = play(OddShap(samples=61), lambda rows: rows @ weights.T, 60)
    np.testing.assert_allclose(scores.values, weights, atol=1e-9)


@pytest.mark.parametrize(("n", "relevant", "samples"), [(20, 10, 161), (60, 10, 161)])
def test_it_beats_leverage_shap_where_few_units_matter(n, relevant, samples):
    games = [Known(random_moebius(n, relevant, seed), seed=seed) for seed in range(5)]

    def error(method):
        return np.median(
            [relative_error(play(method, g, n)[0].values[0], g.shapley()) for g in games]
        )

    ours = error(OddShap(samples=samples))
    assert ours < 0.04
    assert ours < error(LeverageShap(samples=samples)) / 1.5


def test_dense_games_are_not_given_up():
    game = Moebius(20, {(i,): 1.0 + i % 3 for i in range(20)})
    scores, _ = play(OddShap(samples=121), game, 20)
    np.testing.assert_allclose(scores.values[0], game.shapley(), atol=1e-9)


def test_pure_noise_sums_to_the_total_and_invents_little():
    game = Known(Moebius(30, {}), link=False, noise=1.0)
    scores, _ = play(OddShap(samples=121), game, 30)
    none = game(every(1).repeat(30, axis=1)[:1])[0]
    assert scores.values[0].sum() == pytest.approx(-none)
    assert np.abs(scores.values[0]).max() <= abs(none) + 1.0


def test_there_are_no_standard_errors():
    assert play(OddShap(samples=61), Known(random_moebius(10, 4, 0)), 10)[0].standard_errors is None


def test_without_the_value_of_nothing_there_are_no_scores():
    scores, _ = play(OddShap(samples=31), lambda r: np.where(r.any(axis=1), 1.0, np.nan), 6)
    assert np.isnan(scores.values).all()
