# SPDX-License-Identifier: Apache-2.0
"""Faith-Shap: against the definition, shapiq, and what it is for."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.games_known import (
    Known,
    Moebius,
    every,
    make_game,
    play,
    random_moebius,
    shapley_weight,
)

from pizza.errors import ConfigError
from pizza.methods.faith_shap import FaithShap
from pizza.methods.leave_one_out import LeaveOneOut


def table_game(n, seed=0):
    table = np.random.default_rng(seed).normal(size=2**n)
    return lambda rows: table[np.atleast_2d(rows) @ (1 << np.arange(n))]


def pairs_of(scores):
    return {tuple(found["units"]): found["value"] for found in scores.details["interactions"]}


def design(rows):
    n = rows.shape[1]
    products = [rows[:, a] & rows[:, b] for a, b in combinations(range(n), 2)]
    return np.column_stack([np.ones(len(rows)), rows, *products]).astype(float)


def by_least_squares(rows, values, weights):
    """The definition, with a weight at none and all that stands in for infinity."""
    root = np.sqrt(weights)[:, None]
    found = np.linalg.lstsq(root * design(rows), root[:, 0] * values, rcond=None)[0][1:]
    n = rows.shape[1]
    return found[:n], dict(zip(combinations(range(n), 2), found[n:], strict=True))


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_with_all_coalitions_it_is_the_definition(n):
    value = table_game(n, n)
    scores, asked = play(FaithShap(samples=2**n - 1), value, n)
    rows = every(n)
    inner = [shapley_weight(n, int(s)) if 0 < s < n else 1e7 for s in rows.sum(axis=1)]
    mains, pairs = by_least_squares(rows, value(rows), np.array(inner))
    assert len(asked) == 2**n - 1
    assert scores.details["exact"]
    np.testing.assert_allclose(scores.values[0], mains, atol=1e-5)
    assert pairs_of(scores) == pytest.approx(pairs, abs=1e-5)


@pytest.mark.peers
@pytest.mark.parametrize("n", [3, 6, 9])
def test_it_is_shapiqs_exact_index(n):
    shapiq = pytest.importorskip("shapiq")
    value = table_game(n, n)
    theirs = shapiq.ExactComputer(n_players=n, game=value)("FSII", 2).dict_values
    scores, _ = play(FaithShap(samples=2**n - 1), value, n)
    # Theirs has an error of 1e-9: it stands in for infinity by a large number.
    mains = [theirs[(unit,)] for unit in range(n)]
    np.testing.assert_allclose(scores.values[0], mains, atol=3e-9)
    expected = {term: v for term, v in theirs.items() if len(term) == 2}
    assert pairs_of(scores) == pytest.approx(expected, abs=3e-9)


@pytest.mark.peers
def test_from_samples_it_is_shapiqs_regression_on_the_same_coalitions():
    base = pytest.importorskip("shapiq.approximator.regression.base")
    n = 8
    value = Known(random_moebius(n, 6, 2))
    scores, asked = play(FaithShap(samples=231), value, n, seed=1)
    assert not scores.details["exact"]
    rows = np.vstack([asked, np.ones((1, n), dtype=bool)])
    sizes = rows.sum(axis=1)
    drawn = {s: (sizes == s).sum() for s in range(n + 1)}
    # The design draws sizes alike, or all of a size when there are fewer: 1/P is all over drawn.
    weights = np.array([1e9 if s in (0, n) else (n - 1) / (s * (n - s)) for s in sizes])
    expected = _expected_per_size(n, 115)
    weights[(sizes > 0) & (sizes < n)] /= [expected[s] for s in sizes if 0 < s < n]
    assert all(abs(drawn[s] - expected[s]) < 2 for s in range(1, n))
    theirs = base.solve_regression(design(rows), value(rows), weights)[1:]
    np.testing.assert_allclose(scores.values[0], theirs[:n], atol=1e-4)
    pairs = dict(zip(combinations(range(n), 2), theirs[n:], strict=True))
    assert pairs_of(scores) == pytest.approx(pairs, abs=1e-4)


def _expected_per_size(n, n_pairs):
    """Members of each size: pairs are spread alike over sizes, none beyond what there is."""
    there = {s: len(list(combinations(range(n), s))) for s in range(1, n)}
    level = 0.0
    for level in np.linspace(0, max(there.values()), 200_001):
        if sum(min(level, t) for t in there.values()) >= 2 * n_pairs:
            break
    return {s: min(level, t) for s, t in there.items()}


@given(st.integers(2, 7), st.integers(0, 99), st.data())
def test_a_game_of_pairs_is_recovered_exactly(n, seed, data):
    rng = np.random.default_rng(seed)
    terms = [(u,) for u in range(n)] + list(combinations(range(n), 2))
    game = Moebius(n, {term: float(rng.normal()) for term in terms})
    samples = data.draw(st.integers(min(2**n - 1, 6 * len(terms) + 3), 2**n - 1))
    scores, _ = play(FaithShap(samples=max(samples, min(9, 2**n - 1))), game, n, seed=seed)
    np.testing.assert_allclose(scores.values[0], [game.dividends[u,] for u in range(n)], atol=1e-7)
    expected = {term: d for term, d in game.dividends.items() if len(term) == 2}
    assert pairs_of(scores) == pytest.approx(expected, abs=1e-7)


@given(st.integers(2, 6), st.integers(0, 99))
def test_main_effects_and_pairs_share_out_the_whole(n, seed):
    value = table_game(n, seed)
    scores, _ = play(FaithShap(samples=2**n - 1), value, n)
    total = scores.values[0].sum() + sum(pairs_of(scores).values())
    whole = value(np.ones((1, n), dtype=bool))[0] - value(np.zeros((1, n), dtype=bool))[0]
    assert total == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize("samples", [41, 121, 801])
def test_so_they_do_from_samples(samples):
    n = 10
    game = Known(random_moebius(n, 6, 1))
    scores, _ = play(FaithShap(samples=samples), game, n)
    none, whole = game(every(n)[[0, -1]])
    total = scores.values[0].sum() + sum(pairs_of(scores).values())
    assert total == pytest.approx(whole - none)


def test_exchangeable_units_score_the_same_and_a_dummy_nothing():
    def value(rows):
        return np.sqrt(rows[:, 0] + 2.0 * rows[:, 1] + rows[:, 3]) + rows[:, 1] * rows[:, 3]

    # Units 0 and 3 differ by the product alone; 2 does nothing.
    scores, _ = play(FaithShap(samples=15), lambda r: value(r) + r[:, 0] * r[:, 1], 4)
    assert scores.values[0, 0] == pytest.approx(scores.values[0, 3], abs=1e-12)
    assert scores.values[0, 2] == pytest.approx(0, abs=1e-12)
    pairs = pairs_of(scores)
    assert pairs[0, 1] == pytest.approx(pairs[1, 3], abs=1e-12)
    assert max(abs(pairs[pair]) for pair in pairs if 2 in pair) < 1e-12


def test_pairs_are_found_among_many_units_from_few_calls():
    found = []
    for seed in range(4):
        game = Known(random_moebius(60, 8, seed, triples=0), link=False, noise=0.05, seed=seed)
        true = {t: d for t, d in game.inner.dividends.items() if len(t) == 2}
        scores, _ = play(FaithShap(samples=401), game, 60, seed=seed)
        pairs = pairs_of(scores)
        top = sorted(pairs, key=lambda t: -abs(pairs[t]))[: len(true)]
        found.append(len(set(top) & set(true)) / len(true))
    assert np.mean(found) >= 0.75


def test_every_column_is_fitted_and_one_that_is_unknown_is_nan():
    weights = np.array([1.0, -2.0, 0.0, 3.0, 0.5])

    def value(rows):
        linear = rows @ weights
        lost = np.where(rows.sum(axis=1) == 2, np.nan, 2 * linear)
        return np.column_stack([linear, lost, np.full(len(rows), np.nan)])

    scores, _ = play(FaithShap(samples=31), value, 5)
    np.testing.assert_allclose(scores.values[0], weights, atol=1e-9)
    np.testing.assert_allclose(scores.values[1], 2 * weights, atol=1e-9)
    assert np.isnan(scores.values[2]).all()


def test_coalitions_of_others_serve_and_those_that_do_not_are_refused():
    n = 9
    game = Known(random_moebius(n, 5, 0), noise=0.0)
    scores, rows = play(FaithShap(samples=161), game, n, seed=4)
    values = (game(rows) - game(np.ones((1, n), dtype=bool)))[:, None]
    order = np.random.default_rng(0).permutation(len(rows))
    again = FaithShap().estimate(make_game(n), rows[order], values[order])
    np.testing.assert_allclose(again.values, scores.values, atol=1e-12)
    _, alone = play(LeaveOneOut(), game, n)
    with pytest.raises(ConfigError, match="empty coalition"):
        FaithShap().estimate(make_game(n), alone, np.zeros((n, 1)))


def test_one_unit_and_a_constant_game():
    assert play(FaithShap(), lambda rows: 3.0 * rows[:, 0], 1)[0].values.tolist() == [[3.0]]
    for n in (1, 2, 5, 30):
        scores, _ = play(FaithShap(), lambda rows: np.full(len(rows), 5.0), n)
        assert np.abs(scores.values).max() == 0
