# SPDX-License-Identifier: Apache-2.0
"""What holds for all methods of the Shapley family; the exact ones; how pairs are drawn."""

import json
from itertools import permutations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.games_known import (
    Known,
    every,
    exact_banzhaf,
    exact_shapley,
    make_game,
    play,
    random_moebius,
    shapley_weight,
)

from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.methods._designs.pairs import draw_pairs, kernel_masses, uniform_masses
from pizza.methods.banzhaf import Banzhaf
from pizza.methods.kernel_shap import KernelShap
from pizza.methods.leverage_shap import LeverageShap
from pizza.methods.odd_shap import OddShap
from pizza.methods.partition_shap import PartitionShap
from pizza.methods.regression_msr import RegressionMsr
from pizza.methods.shapley import Shapley
from pizza.methods.shapley_sampling import ShapleySampling
from pizza.methods.svarm import Svarm

PAIRED = [KernelShap, LeverageShap, RegressionMsr, OddShap]
ESTIMATORS = [*PAIRED, ShapleySampling, Svarm, PartitionShap]
EXACT = [Shapley, Banzhaf]
EFFICIENT = [Shapley, *PAIRED, ShapleySampling, PartitionShap]

tables = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.integers(-99, 99), min_size=2**n, max_size=2**n)
)


def from_table(table):
    """The game whose value of row r of `every` is ``table[r]``, and its number of units."""
    table = np.asarray(table, dtype=float)
    n = len(table).bit_length() - 1
    return (lambda rows: table[rows @ (1 << np.arange(n))]), n


def some_game(n, seed=0, columns=1):
    return from_table(np.random.default_rng(seed).normal(size=2**n))[0]


# --- the exact methods ---------------------------------------------------------------------------


@given(tables)
def test_shapley_is_the_mean_gain_over_all_orders(table):
    value, n = from_table(table)
    scores, asked = play(Shapley(), value, n)
    expected = np.zeros(n)
    orders = list(permutations(range(n)))
    for order in orders:
        present = np.zeros((1, n), dtype=bool)
        before = value(present)[0]
        for unit in order:
            present[0, unit] = True
            after = value(present)[0]
            expected[unit] += (after - before) / len(orders)
            before = after
    np.testing.assert_allclose(scores.values[0], expected, atol=1e-12 * 99)
    assert len(asked) == 2**n - 1 == Shapley().calls(n)[0]
    assert scores.details["index"] == "shapley"


@given(tables)
def test_banzhaf_is_the_slope_of_the_best_linear_fit_to_all_coalitions(table):
    value, n = from_table(table)
    scores, asked = play(Banzhaf(), value, n)
    np.testing.assert_allclose(scores.values[0], exact_banzhaf(value, n), atol=1e-12 * 99)
    design = np.column_stack([every(n), np.ones(2**n)])
    fitted = np.linalg.lstsq(design, value(every(n)), rcond=None)[0][:-1]
    np.testing.assert_allclose(scores.values[0], fitted, atol=1e-9 * 99)
    assert len(asked) == 2**n - 1
    assert scores.details["index"] == "banzhaf"


@given(tables)
def test_the_oracle_of_these_tests_agrees_with_shapley(table):
    value, n = from_table(table)
    np.testing.assert_allclose(
        play(Shapley(), value, n)[0].values[0], exact_shapley(value, n), atol=1e-12 * 99
    )


@pytest.mark.parametrize("seed", range(3))
def test_dividends_are_shared_equally_by_shapley_and_halved_by_banzhaf(seed):
    game = random_moebius(9, 7, seed)
    np.testing.assert_allclose(play(Shapley(), game, 9)[0].values[0], game.shapley(), atol=1e-12)
    np.testing.assert_allclose(play(Banzhaf(), game, 9)[0].values[0], game.banzhaf(), atol=1e-12)


def test_dummies_are_dummies_however_many_there_are():
    game = Known(random_moebius(11, 5, 4), noise=0.0)
    np.testing.assert_allclose(
        play(Shapley(), game.clean, 11)[0].values[0], game.shapley(), atol=1e-12
    )
    np.testing.assert_allclose(
        play(Banzhaf(), game.clean, 11)[0].values[0], game.banzhaf(), atol=1e-12
    )


@pytest.mark.peers
def test_shapiq_computes_the_same():
    shapiq = pytest.importorskip("shapiq")
    value = some_game(7)
    computer = shapiq.ExactComputer(n_players=7, game=value)
    for method, index in ((Shapley(), "SV"), (Banzhaf(), "BV")):
        theirs = computer(index).get_n_order_values(1)
        np.testing.assert_allclose(play(method, value, 7)[0].values[0], theirs, atol=1e-12)


@pytest.mark.parametrize("method", EXACT)
def test_exact_methods_say_what_to_use_when_there_are_too_many_units(method):
    with pytest.raises(
        ConfigError, match=r"at most 20 units, not 21: .*'(kernel-shap|context-cite)'"
    ):
        next(method().plan(make_game(21)))
    with pytest.raises(BudgetTooSmallError, match=r"needs 31 calls for 5 units .* allows 30"):
        next(method().plan(make_game(5, max_calls=30)))


def test_a_value_that_is_not_defined_is_left_out_of_the_gains_of_its_size():
    weights = np.array([1.0, 2.0, 4.0, 8.0])

    def value(rows):
        lacking = (rows == [True, True, False, False]).all(axis=1)
        return np.where(lacking, np.nan, rows @ weights)

    for method in EXACT:
        scores, _ = play(method(), value, 4)
        # In a linear game all gains of a unit are its weight, whichever are left.
        np.testing.assert_allclose(scores.values[0], weights, atol=1e-12)
        assert scores.details["undefined"] == 1


def test_shapley_needs_the_empty_coalition():
    scores, _ = play(Shapley(), lambda rows: np.where(rows.any(axis=1), 1.0, np.nan), 3)
    assert np.isnan(scores.values).all()


# --- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [Shapley, *PAIRED, Svarm])
@pytest.mark.parametrize("n", range(1, 9))
def test_with_all_coalitions_the_scores_are_exact(method, n):
    value = some_game(n, seed=n)
    options = {} if method is Shapley else {"samples": 2**n - 1}
    scores, asked = play(method(**options), value, n)
    assert len(asked) == 2**n - 1
    np.testing.assert_allclose(scores.values[0], exact_shapley(value, n), atol=1e-12)
    if scores.standard_errors is not None:
        assert scores.standard_errors.max() < 1e-12


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=9), st.integers(0, 5))
@pytest.mark.parametrize(
    "method", [*EXACT, KernelShap, LeverageShap, RegressionMsr, ShapleySampling]
)
def test_a_linear_game_is_recovered_exactly(method, weights, seed):
    weights = np.array(weights, dtype=float)
    options = {} if method in EXACT else {"samples": 5 * len(weights) + 10}
    scores, _ = play(method(**options), lambda rows: rows @ weights, len(weights), seed=seed)
    np.testing.assert_allclose(scores.values[0], weights, atol=1e-9)


@pytest.mark.parametrize("method", EFFICIENT)
@pytest.mark.parametrize("seed", range(3))
def test_scores_sum_to_the_value_of_all_units_less_that_of_none(method, seed):
    value = some_game(8, seed)
    options = {} if method is Shapley else {"samples": 41}
    scores, _ = play(method(**options), value, 8, seed=seed)
    total = value(np.ones((1, 8), dtype=bool)) - value(np.zeros((1, 8), dtype=bool))
    assert scores.values[0].sum() == pytest.approx(total[0], abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 7), st.integers(0, 999), st.data())
@pytest.mark.parametrize("method", [Shapley, Banzhaf, *PAIRED, Svarm])
def test_exchangeable_units_score_the_same_and_a_dummy_nothing(method, n, seed, data):
    a, b, dummy = data.draw(st.permutations(range(n)).map(lambda p: (*p, *p)[:3]))
    table = np.random.default_rng(seed).normal(size=(n + 1, 3))

    def value(rows):
        twins = rows[:, a].astype(int) + rows[:, b]
        others = rows.sum(axis=1) - twins - (rows[:, dummy] if n > 2 else 0)
        return table[others, twins]

    options = {} if method in EXACT else {"samples": 2**n - 1}
    scores = play(method(**options), value, n)[0].values[0]
    assert scores[a] == pytest.approx(scores[b], abs=1e-10)
    if n > 2:
        assert scores[dummy] == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("method", [*EXACT, *ESTIMATORS])
@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_a_constant_game_scores_zero_without_error(method, n):
    scores, _ = play(method(), lambda rows: np.full(len(rows), 5.0), n)
    assert scores.values.tolist() == [[0.0] * n]
    if scores.standard_errors is not None:
        assert np.nan_to_num(scores.standard_errors).max() == 0


@pytest.mark.parametrize("method", [*EXACT, *ESTIMATORS])
def test_one_unit_has_all_of_the_effect(method):
    scores, asked = play(method(), lambda rows: 3.0 * rows[:, 0], 1)
    assert scores.values.tolist() == [[3.0]]
    assert asked.tolist() == [[False]]


@pytest.mark.parametrize("method", [*EXACT, *ESTIMATORS])
def test_every_column_is_estimated_from_the_same_coalitions_as_if_alone(method):
    n = 7
    games = [some_game(n, seed) for seed in range(3)]
    together, asked = play(
        method(), lambda rows: np.column_stack([g(rows) for g in games]), n, max_calls=127
    )
    first, alone = play(method(), games[0], n, max_calls=127)
    np.testing.assert_array_equal(asked, alone)
    np.testing.assert_allclose(together.values[0], first.values[0], atol=1e-12)
    if method is not PartitionShap:  # the first column decides what it splits
        last, _ = play(method(), games[2], n, max_calls=127)
        np.testing.assert_allclose(together.values[2], last.values[0], atol=1e-12)


@pytest.mark.parametrize("method", ESTIMATORS)
def test_the_seed_decides_the_coalitions(method):
    value = Known(random_moebius(10, 5, 0))
    asked = [play(method(samples=60), value, 10, seed=seed)[1].tolist() for seed in (1, 1, 2)]
    assert asked[0] == asked[1]
    assert (asked[1] == asked[2]) == (method is PartitionShap)


@pytest.mark.parametrize("method", ESTIMATORS)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("budget", [None, 1, 2, 3, 4, 7, 25, 26, 64, 500])
def test_a_budget_is_kept_or_refused_before_anything_is_asked(method, n, budget):
    value = Known(random_moebius(n, n, 0, pairs=0, triples=0))
    least, most = method().calls(n)
    if budget is not None and budget < least:
        with pytest.raises(BudgetTooSmallError, match=f"{least} calls"):
            next(method().plan(make_game(n, max_calls=budget)))
        return
    scores, asked = play(method(), value, n, max_calls=budget)  # play checks the budget
    assert least <= len(asked) <= most
    assert np.isfinite(scores.values).all()


@pytest.mark.parametrize("method", ESTIMATORS)
@pytest.mark.parametrize("samples", [23, 40, 99, 5000])
def test_samples_decide_whatever_the_budget(method, samples):
    n = 11
    least, most = method(samples=samples).calls(n)
    _, asked = play(method(samples=samples), some_game(n), n, max_calls=6000)
    assert least <= len(asked) <= most <= min(samples, 2**n - 1)
    if method in [*PAIRED, Svarm]:
        assert len(asked) == least == most >= min(samples, 2**n - 1) - 1


@pytest.mark.parametrize("method", ESTIMATORS)
def test_samples_that_cannot_be_are_refused(method):
    for wrong in (0, -3, True):
        with pytest.raises(ConfigError, match=f"at least 1, not {wrong}"):
            method(samples=wrong)
    with pytest.raises(ConfigError, match="samples=2 is too few"):
        next(method(samples=2).plan(make_game(10)))
    with pytest.raises(BudgetTooSmallError, match=r"needs 90 calls .* allows 80"):
        next(method(samples=90).plan(make_game(10, max_calls=80)))


@pytest.mark.parametrize("method", [*EXACT, *ESTIMATORS])
def test_a_column_without_values_is_nan_and_disturbs_no_other(method):
    n = 6
    value = some_game(n)

    def with_holes(rows):
        column = value(rows)
        holes = np.where(rows.sum(axis=1) % 2 == 1, np.nan, column)
        nothing = np.where(rows.all(axis=1), 0.0, np.nan)
        return np.column_stack([column, nothing, holes])

    scores, _ = play(method(), with_holes, n, max_calls=63)
    alone, _ = play(method(), value, n, max_calls=63)
    np.testing.assert_allclose(scores.values[0], alone.values[0], atol=1e-12)
    assert np.isnan(scores.values[1]).all()
    assert not np.isinf(scores.values[2]).any()


@pytest.mark.parametrize(
    "method", [KernelShap, LeverageShap, RegressionMsr, OddShap, ShapleySampling]
)
def test_a_linear_game_is_recovered_from_the_values_that_are_left(method):
    weights = np.array([3.0, -1.0, 2.0, 0.0, 5.0, 1.0, 1.0, -4.0])
    lost = {row.tobytes() for row in every(8)[[7, 60, 100, 129, 200]]}

    def value(rows):
        return np.where([row.tobytes() in lost for row in rows], np.nan, rows @ weights)

    scores, _ = play(method(samples=199), value, 8)
    np.testing.assert_allclose(scores.values[0], weights, atol=1e-9)


@pytest.mark.parametrize("method", ESTIMATORS)
def test_details_are_plain_json(method):
    scores, asked = play(method(samples=60), some_game(9), 9)
    details = json.loads(json.dumps(dict(scores.details)))
    assert details["index"] == ("owen" if method is PartitionShap else "shapley")
    assert details["samples"] >= len(asked)


# --- how pairs are drawn -------------------------------------------------------------------------

MASSES = [kernel_masses, uniform_masses]


@settings(deadline=None)
@given(st.integers(2, 11), st.integers(0, 99), st.data())
@pytest.mark.parametrize("masses", MASSES)
def test_pairs_are_distinct_and_as_many_as_asked_for(masses, n, seed, data):
    count = data.draw(st.integers(0, 2 ** (n - 1) - 1))
    pairs = draw_pairs(n, count, masses(n), np.random.default_rng(seed))
    rows = pairs.round()
    assert rows.shape == (1 + 2 * count, n)
    assert len({row.tobytes() for row in rows}) == len(rows)
    assert not rows.all(axis=1).any()
    np.testing.assert_array_equal(rows[1 : 1 + count], ~rows[1 + count :])
    sizes = pairs.present.sum(axis=1)
    for size in np.unique(sizes):
        there = comb(n, int(size)) / (2 if 2 * size == n else 1)
        drawn = (sizes == size).sum()
        assert drawn == pytest.approx(pairs.share[sizes == size][0] * there)
        assert abs(drawn - pairs.expected[sizes == size][0]) < 1 + 1e-9
    if count == 2 ** (n - 1) - 1:
        assert pairs.complete
        kernel = [shapley_weight(n, int(s)) for s in sizes]
        np.testing.assert_allclose(pairs.mass, 2 * np.array(kernel))


@pytest.mark.parametrize("masses", MASSES)
@pytest.mark.parametrize("n", [5, 6])
def test_what_a_pair_stands_for_is_one_over_its_probability(masses, n):
    repeats, count = 1500, 6
    seen: dict[bytes, list[float]] = {}
    for seed in range(repeats):
        pairs = draw_pairs(n, count, masses(n), np.random.default_rng(seed))
        for row, mass in zip(pairs.present, pairs.mass, strict=True):
            # A pair of the middle size may be shown by either member.
            key = row if row.sum() * 2 < n or row[0] else ~row
            seen.setdefault(key.tobytes(), []).append(mass)
    assert len(seen) == 2 ** (n - 1) - 1
    for key, found in seen.items():
        size = int(np.frombuffer(key, dtype=bool).sum())
        # Horvitz and Thompson: the mean of mass over draws is the kernel of both members.
        expected = 2 * shapley_weight(n, size)
        noise = 5 * max(found) / np.sqrt(repeats)
        assert sum(found) / repeats == pytest.approx(expected, abs=noise)


def test_pairs_that_are_left_stand_for_the_others_of_their_size():
    pairs = draw_pairs(9, 60, kernel_masses(9), np.random.default_rng(0))
    known = np.arange(60) % 3 > 0
    left = pairs.only(known)
    np.testing.assert_array_equal(left.present, pairs.present[known])
    for size in range(1, 5):
        before, after = pairs.present.sum(axis=1) == size, left.present.sum(axis=1) == size
        assert 0 < after.sum() < before.sum()
        assert left.mass[after].sum() == pytest.approx(pairs.mass[before].sum())
        part = after.sum() / before.sum()
        np.testing.assert_allclose(left.share[after], pairs.share[before][0] * part)
        np.testing.assert_allclose(left.expected[after], pairs.expected[before][0] * part)
    assert not left.complete


def test_the_outer_sizes_are_enumerated_when_the_budget_covers_them():
    pairs = draw_pairs(12, 60, kernel_masses(12), np.random.default_rng(0))
    sizes = pairs.present.sum(axis=1)
    assert (sizes == 1).sum() == 12
    assert (pairs.share[sizes == 1] == 1).all()
    assert (pairs.share[sizes > 1] < 1).all()


@pytest.mark.parametrize("masses", MASSES)
@pytest.mark.parametrize("n", [1000, 10_000])
def test_very_many_units_overflow_nothing(masses, n):
    pairs = draw_pairs(n, 40, masses(n), np.random.default_rng(0))
    assert len({row.tobytes() for row in pairs.round()}) == 81
    assert np.isfinite(pairs.mass).all()
    assert (pairs.mass > 0).all()
