# SPDX-License-Identifier: Apache-2.0
"""Interactions against their closed form, and what is found with few calls."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.games_known import Known, every, exact_banzhaf, play, random_moebius

from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.methods.pairwise_interactions import PairwiseInteractions


def exact_pairs(game, n):
    """The mean over all coalitions of v(S+i+j) - v(S+i) - v(S+j) + v(S)."""
    rows = every(n)
    values = game(rows)
    signs = 2.0 * rows - 1
    return {
        (i, j): 4 * np.mean(values * signs[:, i] * signs[:, j])
        for i in range(n)
        for j in range(i + 1, n)
    }


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(0, 100))
def test_all_coalitions_give_the_exact_indices(n, seed):
    values = np.random.default_rng(seed).normal(size=2**n)
    game = lambda rows: values[rows @ (1 << np.arange(n))]  # noqa: E731
    scores, _ = play(PairwiseInteractions(), game, n)
    np.testing.assert_allclose(scores.values[0], exact_banzhaf(game, n), atol=1e-11)
    expected = exact_pairs(game, n)
    found = {tuple(p["units"]): p["value"] for p in scores.details["interactions"]}
    assert found.keys() == expected.keys()
    for pair, value in found.items():
        assert value == pytest.approx(expected[pair], abs=1e-11)


def test_repetition_is_negative_and_teamwork_positive():
    def value(rows):
        either = (rows[:, 0] | rows[:, 1]).astype(float)
        both = (rows[:, 2] & rows[:, 3]).astype(float)
        return 3.0 * either + 2.0 * both + 0.5 * rows[:, 4]

    scores, _ = play(PairwiseInteractions(samples=200), value, 25)
    first, second, *rest = scores.details["interactions"]
    assert (first["units"], second["units"]) == ([0, 1], [2, 3])
    assert first["value"] == pytest.approx(-3.0, abs=0.1)
    assert second["value"] == pytest.approx(2.0, abs=0.1)
    assert all(abs(p["value"]) < 0.1 for p in rest)
    np.testing.assert_allclose(scores.values[0, :5], [1.5, 1.5, 1.0, 1.0, 0.5], atol=0.1)


def test_most_of_the_strongest_pairs_are_found_with_320_calls():
    shares = []
    for seed in range(6):
        inner = random_moebius(20, 10, seed)
        game = Known(inner, seed=seed)
        relevant = sorted({u for term in inner.dividends for u in term})

        def small(rows, game=game, relevant=relevant):
            whole = np.ones((len(rows), 20), dtype=bool)
            whole[:, relevant] = rows
            return game.clean(whole)

        exact = exact_pairs(small, len(relevant))
        strongest = sorted(exact, key=lambda p: -abs(exact[p]))[:10]
        truth = {(relevant[a], relevant[b]) for a, b in strongest}
        scores, asked = play(PairwiseInteractions(), game, 20, max_calls=320, seed=seed)
        assert len(asked) == 320
        found = {tuple(p["units"]) for p in scores.details["interactions"][:10]}
        shares.append(len(found & truth) / 10)
    assert np.mean(shares) >= 0.7


def test_errors_come_with_enough_calls_and_cover():
    inside = []
    for seed in range(10):
        game = Known(random_moebius(20, 6, seed), seed=seed)
        scores, _ = play(PairwiseInteractions(samples=320), game, 20, seed=seed)
        inside.append(np.abs(scores.values[0] - game.banzhaf()) < 1.645 * scores.standard_errors[0])
    assert 0.8 <= np.mean(inside) <= 1.0
    few, _ = play(PairwiseInteractions(samples=24), game, 20)
    assert few.standard_errors is None
    assert few.details["interactions"][0]["standard_error"] is None


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_a_constant_game_has_nothing(n):
    scores, _ = play(PairwiseInteractions(samples=60), lambda rows: np.ones(len(rows)), n)
    assert np.abs(scores.values).max() < 1e-12
    assert len(scores.details["interactions"]) == min(n, 12) * (min(n, 12) - 1) // 2
    assert all(abs(p["value"]) < 1e-12 for p in scores.details["interactions"])


def test_further_columns_have_main_effects_and_unknown_ones_none():
    def value(rows):
        sums = rows @ np.eye(15)[0]
        return np.column_stack([sums, 5 * rows[:, 1], np.full(len(rows), np.nan)])

    scores, _ = play(PairwiseInteractions(samples=150), value, 15)
    assert scores.values[0, 0] == pytest.approx(1.0, abs=0.05)
    assert scores.values[1, 1] == pytest.approx(5.0, abs=0.3)
    assert np.isnan(scores.values[2]).all()


def test_it_says_what_it_accepts_and_needs():
    with pytest.raises(ConfigError, match="not 1"):
        PairwiseInteractions(strongest=1)
    with pytest.raises(BudgetTooSmallError, match="pairwise-interactions needs 8 calls"):
        play(PairwiseInteractions(), lambda rows: rows[:, 0], 20, max_calls=7)
