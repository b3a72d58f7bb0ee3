# SPDX-License-Identifier: Apache-2.0
"""Stratified SVARM: mean values with and without a unit, size by size."""

import numpy as np
import pytest
from support.games_known import Known, exact_shapley, play, random_moebius

from pizza.methods.svarm import Svarm


def by_strata(value, asked, n):
    """The definition on what was asked; an empty stratum is like its size."""
    rows = np.vstack([asked, np.ones((1, n), dtype=bool)])
    v = value(rows)
    sizes = rows.sum(axis=1)
    typical = {s: v[sizes == s].mean() for s in set(sizes.tolist())}
    result = np.zeros(n)
    for unit in range(n):
        for size in range(n):
            with_it = v[(sizes == size + 1) & rows[:, unit]]
            without = v[(sizes == size) & ~rows[:, unit]]
            up = with_it.mean() if len(with_it) else typical.get(size + 1, 0.0)
            down = without.mean() if len(without) else typical.get(size, 0.0)
            result[unit] += (up - down) / n
    return result


@pytest.mark.parametrize("samples", [21, 40, 70, 200])
def test_scores_are_the_differences_of_the_strata(samples):
    value = Known(random_moebius(10, 6, 2))
    scores, asked = play(Svarm(samples=samples), value, 10, seed=1)
    assert len(asked) == samples
    np.testing.assert_allclose(scores.values[0], by_strata(value, asked, 10), atol=1e-10)


@pytest.mark.parametrize("n", [3, 4, 5, 9])
def test_sizes_none_one_and_all_but_one_come_first(n):
    _, asked = play(Svarm(), Known(random_moebius(n, n, 0, pairs=0, triples=0)), n, max_calls=60)
    sizes = asked.sum(axis=1)
    first = min(2 * n + 1, 2**n - 1)
    assert set(sizes[:first].tolist()) == {0, 1, n - 1}
    assert (sizes[:first] == 1).sum() == (sizes[:first] == n - 1).sum() == n


def test_the_warm_up_fills_every_stratum():
    n = 12
    _, asked = play(Svarm(samples=150), Known(random_moebius(n, 6, 0)), n)
    sizes = asked.sum(axis=1)
    for size in range(1, n):
        assert asked[sizes == size].any(axis=0).all()
        assert not asked[sizes == size].all(axis=0).any()


def test_it_is_unbiased():
    game = Known(random_moebius(8, 6, 5), noise=0.0)
    runs = [play(Svarm(samples=90), game, 8, seed=seed)[0] for seed in range(200)]
    values = np.array([run.values[0] for run in runs])
    noise = values.std(axis=0, ddof=1) / np.sqrt(len(runs))
    assert (np.abs(values.mean(axis=0) - game.shapley()) < 4 * noise).all()


def test_standard_errors_are_the_spread_once_every_stratum_has_two_values():
    game = Known(random_moebius(8, 6, 5), noise=0.0)
    runs = [play(Svarm(samples=150), game, 8, seed=seed)[0] for seed in range(80)]
    told = np.array([run.standard_errors[0] for run in runs])
    assert np.isfinite(told).mean() > 0.5
    spread = np.std([run.values[0] for run in runs], axis=0)
    mean = np.sqrt(np.nanmean(told**2, axis=0))
    np.testing.assert_allclose(mean, spread, rtol=0.35)


def test_no_standard_errors_before_that():
    scores, _ = play(Svarm(samples=41), Known(random_moebius(20, 6, 5)), 20)
    assert scores.standard_errors is None


def test_a_column_without_the_value_of_nothing_is_nan():
    scores, _ = play(Svarm(samples=50), lambda r: np.where(r.any(axis=1), 1.0, np.nan), 6)
    assert np.isnan(scores.values).all()


def test_values_that_are_not_defined_are_left_out_of_their_strata():
    value = Known(random_moebius(6, 4, 0), noise=0.0)
    lost = np.array([True, True, True, False, False, False])

    def with_hole(rows):
        return np.where((rows == lost).all(axis=1), np.nan, value(rows))

    scores, asked = play(Svarm(samples=63), with_hole, 6)
    rest = asked[(asked != lost).any(axis=1)]
    assert len(rest) == 62
    np.testing.assert_allclose(scores.values[0], by_strata(value, rest, 6), atol=1e-12)
    assert np.abs(scores.values[0] - exact_shapley(value, 6)).max() > 1e-6
