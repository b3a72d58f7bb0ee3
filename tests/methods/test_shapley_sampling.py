# SPDX-License-Identifier: Apache-2.0
"""Shapley sampling: gains in random orders and their reverses."""

from itertools import permutations

import numpy as np
import pytest
from support.games_known import (
    Known,
    Moebius,
    exact_shapley,
    make_game,
    play,
    random_moebius,
)

from pizza.methods.shapley_sampling import ShapleySampling, _gains, _orders, _prefixes


def test_coalitions_are_what_the_orders_pass_through():
    n = 5
    plan = ShapleySampling(samples=1 + 2 * 3 * 4).plan(make_game(n))
    rows = next(plan)
    assert not rows[0].any()
    paths = rows[1:].reshape(6, n - 1, n)
    assert (paths.sum(axis=2) == np.arange(1, n)).all()
    assert (paths[:, :-1] <= paths[:, 1:]).all()  # units join and stay
    forward, backward = paths[:3], paths[3:]
    np.testing.assert_array_equal(backward, ~forward[:, ::-1])


def test_scores_are_the_mean_gains():
    table = np.random.default_rng(0).normal(size=2**5)

    def value(rows):
        return table[rows @ (1 << np.arange(5))]

    scores, asked = play(ShapleySampling(samples=25), value, 5, seed=4)
    orders = _orders(5, 3, np.random.default_rng(4))
    expected = np.zeros(5)
    for order in orders:
        present = np.zeros((1, 5), dtype=bool)
        for unit in order:
            before = value(present)[0]
            present[0, unit] = True
            expected[unit] += (value(present)[0] - before) / len(orders)
    np.testing.assert_allclose(scores.values[0], expected, atol=1e-12)
    assert len(asked) <= 25
    assert scores.details["orders"] == 6


def test_all_orders_give_the_exact_values():
    table = np.random.default_rng(0).normal(size=2**4)
    orders = np.array(list(permutations(range(4))))
    rows = _prefixes(orders)
    values = table[rows @ (1 << np.arange(4))] - table[-1]
    exact = exact_shapley(lambda r: table[r @ (1 << np.arange(4))], 4)
    np.testing.assert_allclose(
        _gains(orders, values[:, None]).mean(axis=0)[:, 0], exact, atol=1e-12
    )


def test_an_order_and_its_reverse_cancel_interactions_of_two():
    game = Moebius(6, {(0,): 1.0, (1, 2): 3.0, (3, 5): -2.0, (0, 4): 1.5})
    scores, _ = play(ShapleySampling(samples=11), game, 6)
    np.testing.assert_allclose(scores.values[0], game.shapley(), atol=1e-12)


def test_it_is_unbiased_and_its_standard_errors_are_the_spread():
    game = Known(random_moebius(10, 6, 5), noise=0.0)
    runs = [play(ShapleySampling(samples=145), game, 10, seed=seed)[0] for seed in range(150)]
    values = np.array([run.values[0] for run in runs])
    spread = values.std(axis=0, ddof=1)
    bias = np.abs(values.mean(axis=0) - game.shapley())
    assert (bias <= 4 * spread / np.sqrt(150) + 1e-12).all()
    told = np.sqrt(np.mean([run.standard_errors[0] ** 2 for run in runs], axis=0))
    np.testing.assert_allclose(told, spread, rtol=0.25, atol=1e-12)


def test_one_order_when_there_is_no_budget_for_its_reverse():
    scores, asked = play(ShapleySampling(), lambda rows: rows @ np.arange(8.0), 8, max_calls=14)
    assert len(asked) == 8
    assert scores.details["orders"] == 1
    assert scores.standard_errors is None
    np.testing.assert_allclose(scores.values[0], np.arange(8.0))


def test_one_block_has_no_standard_errors():
    scores, asked = play(ShapleySampling(samples=15), lambda rows: rows @ np.arange(8.0), 8)
    assert len(asked) == 15
    assert scores.standard_errors is None


def test_few_units_are_ordered_more_often_at_no_more_calls():
    table = np.random.default_rng(1).normal(size=8)

    def value(rows):
        return table[rows @ (1 << np.arange(3))]

    scores, asked = play(ShapleySampling(), value, 3, max_calls=100)
    assert len(asked) == 7
    assert scores.details["orders"] > 40
    gap = np.abs(scores.values[0] - exact_shapley(value, 3))
    assert (gap < 4 * scores.standard_errors[0]).all()


def test_gains_that_are_not_defined_are_left_out():
    weights = np.arange(1.0, 7.0)

    def value(rows):
        return np.where(rows.sum(axis=1) == 3, np.nan, rows @ weights)

    scores, _ = play(ShapleySampling(samples=400), value, 6)
    np.testing.assert_allclose(scores.values[0], weights, atol=1e-12)
    assert scores.details["undefined_gains"] == 2 * scores.details["orders"]


@pytest.mark.peers
def test_shapiq_estimates_the_same_value():
    shapiq = pytest.importorskip("shapiq")
    table = np.random.default_rng(2).normal(size=2**6)

    def value(rows):
        return table[np.atleast_2d(rows) @ (1 << np.arange(6))]

    theirs = shapiq.PermutationSamplingSV(n=6, random_state=0).approximate(20_000, value)
    ours, _ = play(ShapleySampling(samples=1023), value, 6)
    gap = np.abs(ours.values[0] - theirs.get_n_order_values(1))
    assert (gap < 5 * ours.standard_errors[0]).all()
