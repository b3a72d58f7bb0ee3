# SPDX-License-Identifier: Apache-2.0
"""Regression MSR: the surrogate's values and an unbiased correction."""

from math import comb, factorial

import numpy as np
import pytest
from support.games_known import Known, play, random_moebius, relative_error

from pizza.methods._designs.found_pairs import PairedValues
from pizza.methods._designs.pairs import draw_pairs, uniform_masses
from pizza.methods.regression_msr import RegressionMsr, _estimate, ridge


def test_the_correction_is_the_one_of_the_paper():
    n, count = 8, 30
    rng = np.random.default_rng(0)
    value = Known(random_moebius(n, 6, 1))
    pairs = draw_pairs(n, count, uniform_masses(n), rng)
    rows = pairs.round()
    whole = value(np.ones((1, n), dtype=bool))[0]
    measured = PairedValues.of((value(rows) - whole)[:, None])
    folds = rng.permutation(count) % 10
    values, _ = _estimate(pairs, measured.odd, measured.total, folds)

    def weight(size):
        return factorial(size) * factorial(n - size - 1) / factorial(n)

    # D(S): the expected number of coalitions of its size over the number that there are.
    per_size = {int(s): e for s, e in zip(pairs.present.sum(axis=1), pairs.expected, strict=True)}
    surrogates = [
        ridge(pairs.present[folds != k] - 0.5, measured.odd[folds != k])[:, 0] for k in range(10)
    ]
    expected = np.mean(surrogates, axis=0)
    for at, row in enumerate(rows[1:]):
        size = int(row.sum())
        drawn = per_size[min(size, n - size)] * (2 if 2 * size == n else 1)
        chance = drawn / comb(n, size)
        g = surrogates[folds[at % count]]
        # An intercept of g drops out: every pair is corrected in both of its members.
        residual = value(row[None])[0] - row @ g
        part = np.where(row, weight(size - 1) if size else 0, -weight(size) if size < n else 0)
        expected += residual * part / chance
    # The full coalition and the empty one, of which the surrogates' values are their sums.
    expected += (measured.total[0] - np.mean(surrogates, axis=0).sum()) / n
    np.testing.assert_allclose(values[0], expected, atol=1e-10)


def test_it_is_unbiased_whatever_the_surrogate():
    game = Known(random_moebius(10, 7, 2), noise=0.0)
    runs = [play(RegressionMsr(samples=61), game, 10, seed=seed)[0] for seed in range(80)]
    values = np.array([run.values[0] for run in runs])
    noise = values.std(axis=0, ddof=1) / np.sqrt(len(runs))
    assert (np.abs(values.mean(axis=0) - game.shapley()) < 4 * noise).all()


def test_standard_errors_are_the_spread_over_seeds():
    game = Known(random_moebius(12, 6, 3), noise=0.0)
    runs = [play(RegressionMsr(samples=201), game, 12, seed=seed)[0] for seed in range(60)]
    spread = np.std([run.values[0] for run in runs], axis=0)
    told = np.sqrt(np.mean([run.standard_errors[0] ** 2 for run in runs], axis=0))
    np.testing.assert_allclose(told, spread, rtol=0.45)


def test_ridge_is_scikit_learns_and_its_strength_the_one_of_least_gcv():
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    design = rng.normal(size=(40, 15))
    targets = design @ rng.normal(size=(15, 2)) + np.array([0.1, 6.0]) * rng.normal(size=(40, 2))
    weights = ridge(design, targets)
    base = (np.linalg.svd(design, compute_uv=False) ** 2).mean()
    best = []
    for column in range(2):
        scores = {}
        for strength in base * np.append(0.0, np.geomspace(1e-3, 10.0, 9)):
            gram = design.T @ design + strength * np.eye(15)
            hat = design @ np.linalg.solve(gram, design.T)
            rest = targets[:, column] - hat @ targets[:, column]
            scores[strength] = rest @ rest / (40 - np.trace(hat)) ** 2
        best.append(min(scores, key=scores.get))
        fit = linear_model.Ridge(best[-1], fit_intercept=False).fit(design, targets[:, column])
        np.testing.assert_allclose(weights[:, column], fit.coef_, atol=1e-8)
    assert best[0] < best[1]  # noise is shrunk more


def test_ridge_of_nothing_is_nothing():
    assert ridge(np.zeros((0, 3)), np.zeros((0, 2))).tolist() == [[0.0, 0.0]] * 3


def test_more_coalitions_bring_it_nearer():
    games = [Known(random_moebius(16, 8, seed), seed=seed) for seed in range(5)]
    errors = {
        samples: np.median(
            [
                relative_error(play(RegressionMsr(samples), g, 16)[0].values[0], g.shapley())
                for g in games
            ]
        )
        for samples in (101, 801)
    }
    assert errors[101] < 0.1
    assert errors[801] < errors[101] / 5


def test_without_the_value_of_nothing_there_are_no_scores():
    scores, _ = play(RegressionMsr(samples=31), lambda r: np.where(r.any(axis=1), 1.0, np.nan), 6)
    assert np.isnan(scores.values).all()
