# SPDX-License-Identifier: Apache-2.0
"""Auto: which design it takes, when it stops, what it says of its own quality."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.games_known import (
    Known,
    exact_banzhaf,
    exact_shapley,
    play,
    random_moebius,
    relative_error,
)

from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.methods.auto import Auto
from pizza.methods.context_cite import ContextCite
from pizza.methods.odd_shap import OddShap
from pizza.methods.paired_sparse_shap import PairedSparseShap
from pizza.methods.random_ablation import RandomAblation


@pytest.mark.parametrize("index", ["banzhaf", "shapley"])
@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, 100))
def test_what_can_be_enumerated_is_exact(index, n, seed):
    values = np.random.default_rng(seed).normal(size=2**n)
    game = lambda rows: values[rows @ (1 << np.arange(n))]  # noqa: E731
    scores, asked = play(Auto(index=index), game, n, max_calls=2**n - 1)
    exact = {"banzhaf": exact_banzhaf(game, n), "shapley": exact_shapley(game, n)}
    assert len(asked) == 2**n - 1
    np.testing.assert_allclose(scores.values[0], exact[index], atol=1e-12)
    for name, expected in exact.items():
        np.testing.assert_allclose(scores.details["exact"][name], expected, atol=1e-12)
    assert scores.details["design"] == "all coalitions"


@pytest.mark.parametrize(
    ("index", "calls", "design"),
    [
        ("banzhaf", 59, "random halves"),
        ("banzhaf", 60, "complement pairs"),
        ("shapley", 59, "random halves"),
        ("shapley", 99, "complement pairs"),
        ("shapley", 100, "complement pairs of uniform sizes"),
    ],
)
def test_the_budget_decides_the_design(index, calls, design):
    # So noisy that nothing is found at half of the budget, which would change the plan.
    game = Known(random_moebius(40, 6, 0), noise=5.0)
    scores, asked = play(Auto(index=index, early_stop=False), game, 40, max_calls=calls)
    assert scores.details["design"] == design
    assert calls - 1 <= len(asked) <= calls
    assert scores.details["unspent"] == calls - len(asked)
    # What is not a Shapley value is not called one.
    assert (scores.details["index"] == "shapley") == (design.endswith("sizes"))
    complements = {row.tobytes() for row in ~asked}
    paired = sum(row.tobytes() in complements for row in asked)
    assert (paired >= len(asked) - 1) == (design != "random halves")


def test_without_a_budget_it_takes_ten_calls_per_unit_up_to_512():
    game = Known(random_moebius(20, 6, 0))
    assert len(play(Auto(early_stop=False), game, 20)[1]) == 200
    game = Known(random_moebius(90, 6, 0))
    assert len(play(Auto(early_stop=False), game, 90)[1]) == 512


def test_an_answer_that_is_settled_is_not_paid_for_further():
    weights = np.zeros(50)
    weights[:6] = 6.0, -5.0, 4.0, 3.0, 2.0, 1.0
    scores, asked = play(Auto(), lambda rows: rows @ weights, 50, max_calls=400)
    assert len(asked) == 200  # two of four waves
    assert scores.details["unspent"] == 200
    np.testing.assert_allclose(scores.values[0], weights, atol=1e-6)


def test_a_game_of_noise_is_paid_for_and_called_noise():
    game = Known(random_moebius(50, 5, 0), noise=50.0)
    scores, asked = play(Auto(), game, 50, max_calls=60)
    assert len(asked) == 60
    assert "budget too small for this many units" in scores.details["quality"]["warning"]
    assert "coarsen to sentences" in scores.details["quality"]["warning"]


def test_a_game_that_is_not_additive_is_called_that():
    def parity(rows):
        return 1.0 * rows[:, 0] + 4.0 * (rows[:, 1] ^ rows[:, 2])

    scores, _ = play(Auto(), parity, 30, max_calls=240)
    assert "interact" in scores.details["quality"]["warning"]
    assert scores.details["quality"]["cv_r2"] > 0.5 > scores.details["quality"]["r2"]


def test_more_units_than_calls_is_what_it_is_for():
    game = Known(random_moebius(300, 6, 1))
    scores, asked = play(Auto(), game, 300, max_calls=128)
    assert len(asked) == 128
    assert scores.details["estimator"] == "blend"
    assert scores.standard_errors is None
    assert relative_error(scores.values[0], game.banzhaf()) < 0.25


@pytest.mark.parametrize("calls", [128, 320])
def test_errors_belong_to_the_scores_they_come_with(calls):
    inside = []
    for seed in range(10):
        game = Known(random_moebius(40, 6, seed), seed=seed)
        scores, _ = play(Auto(early_stop=False), game, 40, max_calls=calls, seed=seed)
        inside.append(np.abs(scores.values[0] - game.banzhaf()) < 1.645 * scores.standard_errors[0])
    assert 0.85 <= np.mean(inside) <= 0.97


def test_few_calls_per_relevant_unit_have_no_errors():
    weights = np.ones(60)
    scores, _ = play(Auto(early_stop=False), lambda rows: rows @ weights, 60, max_calls=120)
    assert scores.details["design"] == "complement pairs"
    assert scores.standard_errors is None


def test_it_is_never_far_behind_the_method_that_fits_the_budget_best():
    for calls in (48, 160, 320):
        errors = {"auto": [], "halves": [], "means": [], "shapley": []}
        for seed in range(3):
            game = Known(random_moebius(60, 8, seed), seed=seed)
            truth = game.banzhaf()
            for name, method in (
                ("auto", Auto()),
                ("halves", ContextCite()),
                ("means", RandomAblation()),
                ("shapley", PairedSparseShap()),
            ):
                scores, _ = play(method, game, 60, max_calls=calls, seed=seed)
                errors[name].append(relative_error(scores.values[0], truth))
        middle = {name: np.median(found) for name, found in errors.items()}
        assert middle["auto"] <= min(middle.values()) + 0.03
        assert middle["auto"] < middle["means"]


def test_interactions_come_from_the_same_calls():
    def value(rows):
        return 3.0 * (rows[:, 0] | rows[:, 1]) + 1.0 * rows[:, 5]

    scores, asked = play(Auto(early_stop=False), value, 30, max_calls=200)
    assert len(asked) == 200
    first = scores.details["interactions"][0]
    assert first["units"] == [0, 1]
    assert first["value"] == pytest.approx(-3.0, abs=0.3)
    assert abs(first["value"]) > 1.645 * first["standard_error"]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(8, 100), st.integers(0, 5), st.sampled_from([0, 1, 2]))
def test_it_never_fails_overspends_or_invents(n, calls, seed, kind):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=n)

    def value(rows):
        sums = (rows[:, :1] if kind == 1 else rows) @ (weights[:1] if kind == 1 else weights)
        if kind == 2:
            sums = np.zeros(len(rows))
        return np.column_stack([sums, 2 * sums, np.full(len(rows), np.nan)])

    scores, asked = play(Auto(), value, n, max_calls=calls, seed=seed)
    assert len(asked) <= calls
    assert np.isfinite(scores.values[:2]).all()
    assert np.isnan(scores.values[2]).all()
    if kind == 2:
        assert (scores.values[:2] == 0).all()
    json.dumps(dict(scores.details), allow_nan=False)


def test_failed_coalitions_are_left_out():
    weights = np.arange(20.0)

    def value(rows):
        values = rows @ weights
        values[rows[:, 3] & ~rows[:, 4] & rows[:, 5]] = np.nan
        return values

    scores, _ = play(Auto(early_stop=False), value, 20, max_calls=200)
    np.testing.assert_allclose(scores.values[0], weights, atol=0.5)
    assert scores.details["undefined"] > 0


def test_the_seed_decides_the_coalitions():
    game = Known(random_moebius(30, 6, 1))
    runs = [play(Auto(), game, 30, max_calls=40, seed=s)[0].values.tolist() for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("options", [{"index": "owen"}, {"tolerance": 0.0}, {"samples": 0}])
def test_it_says_what_it_accepts(options):
    with pytest.raises(ConfigError, match="not"):
        Auto(**options)


def test_too_small_a_budget_is_refused():
    with pytest.raises(BudgetTooSmallError, match="auto needs 8 calls"):
        play(Auto(), lambda rows: rows[:, 0], 50, max_calls=7)


def test_shapley_values_come_from_the_calls_that_also_tell_their_quality():
    game = Known(random_moebius(30, 6, 1))
    scores, asked = play(Auto(index="shapley"), game, 30, max_calls=151)
    odd, same = play(OddShap(), game, 30, max_calls=151)
    sparse, too = play(PairedSparseShap(), game, 30, max_calls=151)
    np.testing.assert_array_equal(asked, same)
    np.testing.assert_array_equal(asked, too)
    np.testing.assert_array_equal(scores.values, odd.values)
    assert scores.details["quality"] == sparse.details["quality"]
    assert scores.details["quality"]["r2"] > 0.5
    assert scores.details["estimator"] == "odd-shap"


def test_a_column_without_the_value_of_nothing_still_has_scores():
    def value(rows):
        sums = rows @ np.array([3.0, *[0.0] * 28, 1.0])
        return np.column_stack([sums, np.where(rows.any(axis=1), sums, np.nan)])

    scores, _ = play(Auto(index="shapley"), value, 30, max_calls=151)
    # v(none) of the second column is unknown: the sparse fit does without it.
    np.testing.assert_allclose(scores.values[1, [0, 29]], [3.0, 1.0], atol=0.05)


def test_once_the_relevant_units_are_found_the_rest_goes_to_complements():
    weights = np.zeros(200)
    weights[[5, 50, 150]] = 3.0, -2.0, 2.0
    scores, asked = play(Auto(early_stop=False), lambda rows: rows @ weights, 200, max_calls=120)
    assert scores.details["design"] == "complement pairs"
    assert len(asked) == 120
    np.testing.assert_array_equal(asked[60:], ~asked[:60])
    np.testing.assert_allclose(scores.values[0], weights, atol=0.1)


def test_units_that_are_as_good_as_zero_do_not_keep_it_from_stopping():
    scores, asked = play(Auto(), lambda rows: 3.0 * rows[:, 3], 40, max_calls=400)
    assert len(asked) == 200  # two of four waves
    np.testing.assert_allclose(scores.values[0], 3.0 * (np.arange(40) == 3), atol=1e-3)
