# SPDX-License-Identifier: Apache-2.0
"""Leverage SHAP: uniform sizes, weights k(S) / P(S), projected least squares."""

from math import comb

import numpy as np
import pytest
from support.games_known import (
    Known,
    every,
    play,
    random_moebius,
    relative_error,
    shapley_weight,
)

from pizza.methods.leverage_shap import LeverageShap


def projected(value, asked, weights, ridge=0.0):
    """``argmin ||W^(1/2) (Z P phi - b)||`` as Musco & Witter write it."""
    n = asked.shape[1]
    none, whole = value(every(n)[[0, -1]])
    root = np.sqrt(weights)
    a = root[:, None] * (asked @ (np.eye(n) - 1 / n))
    b = root * (value(asked) - none - (whole - none) * asked.sum(axis=1) / n)
    inverse = np.linalg.inv(a.T @ a + ridge * np.eye(n)) @ a.T if ridge else np.linalg.pinv(a)
    phi = inverse @ b
    return phi + (whole - none) / n


def inclusion(n, n_coalitions):
    """Probability of each size's coalitions, the outer sizes being enumerated when covered."""
    left, sizes, expected = float(n_coalitions), set(range(1, n)), {}
    while True:
        full = {s for s in sizes if left / len(sizes) >= comb(n, s) - 1e-9}
        if not full:
            break
        expected.update({s: comb(n, s) for s in full})
        left -= sum(comb(n, s) for s in full)
        sizes -= full
    expected.update(dict.fromkeys(sizes, left / max(1, len(sizes))))
    return {s: expected[s] / comb(n, s) for s in expected}


@pytest.mark.parametrize("n", [8, 9])
@pytest.mark.parametrize("samples", [61, 121, 171])
def test_the_fit_is_the_projected_least_squares_of_the_paper(n, samples):
    value = Known(random_moebius(n, 6, 1))
    scores, asked = play(LeverageShap(samples=samples), value, n, seed=5)
    asked = asked[1:]
    chance = inclusion(n, samples - 1)
    sizes = asked.sum(axis=1)
    weights = np.array([shapley_weight(n, int(s)) / chance[s] for s in sizes])
    np.testing.assert_allclose(scores.values[0], projected(value, asked, weights), atol=1e-10)


def test_only_a_singular_system_gets_a_ridge():
    n, value = 12, Known(random_moebius(12, 6, 1))
    scores, asked = play(LeverageShap(samples=13), value, n)
    chance = inclusion(n, 12)
    asked = asked[1:]
    weights = np.array([shapley_weight(n, int(s)) / chance[s] for s in asked.sum(axis=1)])
    expected = projected(value, asked, weights, ridge=1e-3)
    np.testing.assert_allclose(scores.values[0], expected, atol=1e-10)
    assert np.abs(scores.values[0] - projected(value, asked, weights)).max() > 1e-6


def test_sizes_are_uniform():
    _, asked = play(LeverageShap(samples=2401), Known(random_moebius(25, 2, 0)), 25)
    sizes = asked[1:].sum(axis=1)
    counts = np.bincount(sizes, minlength=25)
    assert counts[1] == counts[24] == 25
    # What the outer sizes cannot take is shared by the 22 others.
    assert set(counts[2:24].tolist()) <= {106, 107}


def test_it_comes_nearer_than_its_bound_with_many_calls():
    games = [Known(random_moebius(16, 8, seed), seed=seed) for seed in range(5)]
    errors = {
        samples: np.median(
            [
                relative_error(play(LeverageShap(samples), game, 16)[0].values[0], game.shapley())
                for game in games
            ]
        )
        for samples in (101, 801)
    }
    assert errors[101] < 0.15
    assert errors[801] < errors[101] / 5


def test_standard_errors_are_the_spread_over_seeds():
    game = Known(random_moebius(12, 6, 3), noise=0.0)
    runs = [play(LeverageShap(samples=161), game, 12, seed=seed)[0] for seed in range(60)]
    spread = np.std([run.values[0] for run in runs], axis=0)
    told = np.sqrt(np.mean([run.standard_errors[0] ** 2 for run in runs], axis=0))
    np.testing.assert_allclose(told, spread, rtol=0.45)


def test_a_thousand_units_and_few_calls():
    game = Known(random_moebius(1000, 6, 0))
    scores, asked = play(LeverageShap(samples=201), game, 1000)
    assert len(asked) == 201
    assert np.isfinite(scores.values).all()
