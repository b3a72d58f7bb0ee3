# SPDX-License-Identifier: Apache-2.0
"""L-SHAP against its formula, and against exact Shapley values where it has no limits."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.games_known import Known, exact_shapley, play, random_moebius

from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.methods.l_shap import LShap


def by_formula(game, n, m, k):
    def without(removed):
        row = np.ones((1, n), dtype=bool)
        row[0, list(removed)] = False
        return game(row)[0]

    scores = []
    for i in range(n):
        near = [j for j in range(max(0, i - m), min(n, i + m + 1)) if j != i]
        sizes = range(min(k, len(near)) + 1)
        means = [
            np.mean([without(t) - without((*t, i)) for t in itertools.combinations(near, s)])
            for s in sizes
        ]
        scores.append(np.mean(means))
    return scores


@pytest.mark.parametrize(("m", "k"), [(2, 2), (1, 2), (3, 1), (0, 2), (2, 0)])
def test_scores_are_the_formula(m, k):
    game = Known(random_moebius(9, 5, 0))
    scores, asked = play(LShap(neighbours=m, max_removed=k), game, 9)
    np.testing.assert_allclose(scores.values[0], by_formula(game, 9, m, k), atol=1e-12)
    assert LShap(neighbours=m, max_removed=k).calls(9) == (len(asked), len(asked))
    assert len(np.unique(asked, axis=0)) == len(asked)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, 100))
def test_without_limits_it_is_the_exact_shapley_value(n, seed):
    values = np.random.default_rng(seed).normal(size=2**n)
    game = lambda rows: values[rows @ (1 << np.arange(n))]  # noqa: E731
    scores, _ = play(LShap(neighbours=n, max_removed=n), game, n)
    np.testing.assert_allclose(scores.values[0], exact_shapley(game, n), atol=1e-12)


@settings(deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=12))
def test_a_linear_game_is_recovered_exactly(weights):
    scores, _ = play(LShap(), lambda rows: rows @ np.array(weights, dtype=float), len(weights))
    np.testing.assert_allclose(scores.values[0], weights, atol=1e-9)


def test_without_neighbours_it_is_leave_one_out():
    game = Known(random_moebius(9, 5, 0))
    scores, asked = play(LShap(neighbours=0), game, 9)
    assert len(asked) == 9
    expected = game(np.ones((1, 9), dtype=bool)) - game(~np.eye(9, dtype=bool))
    np.testing.assert_allclose(scores.values[0], expected, atol=1e-12)


def test_neighbouring_copies_of_the_evidence_share_it():
    def either(rows):
        return (rows[:, 3] | rows[:, 4]).astype(float)

    scores, _ = play(LShap(), either, 10)
    assert scores.values[0, 3] == pytest.approx(scores.values[0, 4])
    assert scores.values[0, 3] > 0.2
    assert (np.delete(scores.values[0], [3, 4]) == 0).all()


def test_long_prompts_are_asked_for_in_parts(monkeypatch):
    game = Known(random_moebius(9, 5, 0))
    whole, _ = play(LShap(), game, 9)
    monkeypatch.setattr("pizza.methods.l_shap._CELLS", 9 * 4)
    parts, _ = play(LShap(), game, 9)
    np.testing.assert_array_equal(parts.values, whole.values)


def test_an_unknown_value_leaves_only_its_differences_undefined():
    def value(rows):
        return np.where(rows[:, 0], rows @ np.ones(8), np.nan)

    scores, _ = play(LShap(neighbours=1), value, 8)
    # Unit 0 is removed itself, and with its neighbour 1; unit 2 never sees it gone.
    assert np.isnan(scores.values[0]).tolist() == [True, True] + [False] * 6


@pytest.mark.parametrize("options", [{"neighbours": -1}, {"max_removed": -1}])
def test_it_says_what_it_accepts(options):
    with pytest.raises(ConfigError, match="not -1"):
        LShap(**options)


def test_the_exact_number_of_calls_is_asked_for():
    needed, _ = LShap().calls(20)
    with pytest.raises(BudgetTooSmallError, match=f"l-shap needs {needed} calls"):
        play(LShap(), lambda rows: rows[:, 0], 20, max_calls=needed - 1)
