# SPDX-License-Identifier: Apache-2.0
"""Standard errors where the model answers one prompt in several ways: simulated many times."""

import dataclasses

import numpy as np
import pytest
from support.games_known import Known, every, make_game, random_moebius

from pizza.methods.banzhaf import Banzhaf
from pizza.methods.c_lime import CLime
from pizza.methods.hierarchical import Hierarchical
from pizza.methods.kernel_shap import KernelShap
from pizza.methods.l_shap import LShap
from pizza.methods.leave_one_out import LeaveOneOut
from pizza.methods.leverage_shap import LeverageShap
from pizza.methods.paired_sparse_shap import PairedSparseShap
from pizza.methods.pairwise_interactions import PairwiseInteractions
from pizza.methods.random_ablation import RandomAblation
from pizza.methods.regression_msr import RegressionMsr
from pizza.methods.shapley import Shapley
from pizza.methods.shapley_sampling import ShapleySampling
from pizza.methods.sliding_window import SlidingWindow
from pizza.methods.svarm import Svarm

NOISE = np.array([0.3, 1.0])
NOISE_ALL = np.array([0.15, 0.6])


def noisy_game(n, seed=0, **changes):
    return dataclasses.replace(
        make_game(n, 2, seed=seed), **{"noise": NOISE, "noise_all": NOISE_ALL} | changes
    )


def run(method, clean, game, rng=None):
    """Scores of one run in which every value has its own noise; without ``rng`` there is none.

    ``clean`` are the values of all coalitions, ``(2^n, 2)``; the full one is the last.
    """
    values = clean.copy()
    if rng is not None:
        values += rng.normal(size=clean.shape) * NOISE
        values[-1] = clean[-1] + rng.normal(size=2) * NOISE_ALL
    values -= values[-1]
    plan, rows = method.plan(game), None
    try:
        rows = next(plan)
        while True:
            rows = plan.send(values[rows @ (1 << np.arange(game.n_units))])
    except StopIteration as end:
        return end.value


def clean_game(n, seed=0):
    game = Known(random_moebius(n, min(n, 6), seed), noise=0.0)
    return game.clean(every(n))[:, None] * [1.0, 2.0]


def coverage(runs, truth):
    """Share of 90 % intervals that hold the truth, for each column."""
    return np.mean(
        [np.abs(run.values - truth) < 1.645 * run.standard_errors for run in runs], axis=(0, 2)
    )


LINEAR = [
    (LeaveOneOut(), 6),
    (SlidingWindow(size=3, stride=2), 8),
    (Hierarchical(chunks=3, threshold="static", value=0.0), 7),
    (LShap(), 6),
    (CLime(), 6),
    (CLime(samples=30), 12),
    (Shapley(), 5),
    (Banzhaf(), 5),
    (RandomAblation(), 5),
    (PairwiseInteractions(), 5),
]


@pytest.mark.parametrize(("method", "n"), LINEAR, ids=lambda p: type(p).__name__)
def test_scores_that_are_linear_in_the_values_have_their_noise_and_no_other_error(method, n):
    clean, rng = clean_game(n), np.random.default_rng(0)
    truth = run(method, clean, noisy_game(n)).values
    runs = [run(method, clean, noisy_game(n), rng) for _ in range(300)]
    covered = coverage(runs, truth)
    assert ((covered > 0.87) & (covered < 0.93)).all(), covered
    told = runs[0].standard_errors
    spread = np.std([run.values for run in runs], axis=0)
    np.testing.assert_allclose(told, spread, rtol=0.2)


SAMPLED = [
    (KernelShap, 8, 201),
    (KernelShap, 7, 127),
    (LeverageShap, 8, 201),
    (LeverageShap, 7, 127),
    (RegressionMsr, 8, 201),
    (RegressionMsr, 7, 127),
    (PairedSparseShap, 7, 127),
    (Svarm, 7, 127),
    (Svarm, 8, 240),
    (ShapleySampling, 6, 63),
    (ShapleySampling, 4, 90),
    (ShapleySampling, 9, 400),
]


@pytest.mark.parametrize(("method", "n", "samples"), SAMPLED)
def test_intervals_cover_when_most_coalitions_were_drawn(method, n, samples):
    clean, rng = clean_game(n), np.random.default_rng(1)
    truth = run(Shapley(), clean, noisy_game(n)).values
    runs = [run(method(samples=samples), clean, noisy_game(n, seed), rng) for seed in range(120)]
    covered = coverage(runs, truth)
    assert ((covered > 0.8) & (covered < 0.97)).all(), covered


@pytest.mark.parametrize("method", [KernelShap, LeverageShap, RegressionMsr, ShapleySampling])
def test_without_the_models_noise_the_intervals_of_noisy_values_are_too_narrow(method):
    n, rng = 7, np.random.default_rng(1)
    clean = clean_game(n)
    truth = run(Shapley(), clean, noisy_game(n)).values
    told = [noisy_game(n, seed, noise=None, noise_all=None) for seed in range(60)]
    runs = [run(method(samples=600), clean, game, rng) for game in told]
    assert coverage(runs, truth).max() < 0.7


@pytest.mark.parametrize("method", [LeaveOneOut(), Shapley(), Banzhaf(), SlidingWindow(), CLime()])
def test_what_nobody_measured_is_not_told(method):
    game = noisy_game(5, noise=None, noise_all=None)
    assert run(method, clean_game(5), game).standard_errors is None


def test_leave_one_out_has_the_noise_of_two_values():
    scores = run(LeaveOneOut(), clean_game(3), noisy_game(3))
    np.testing.assert_allclose(
        scores.standard_errors, np.repeat(np.hypot(NOISE, NOISE_ALL)[:, None], 3, axis=1)
    )
    alone = run(LeaveOneOut(), clean_game(3), noisy_game(3, noise_all=None))
    np.testing.assert_allclose(alone.standard_errors, np.repeat(NOISE[:, None], 3, axis=1))


@pytest.mark.parametrize("method", [Shapley(), Banzhaf()])
def test_exact_scores_have_the_root_of_their_squared_weights(method):
    n = 5
    game = noisy_game(n, noise=np.array([1.0, 1.0]), noise_all=np.array([0.0, 1.0]))
    rows = next(method.plan(game))[:-1]
    # The weight of a value is the score in the game that is 1 there and 0 elsewhere.
    weights = []
    for row in rows:
        values = np.repeat((rows == row).all(axis=1)[:, None], 2, axis=1).astype(float)
        weights.append(method.estimate(game, rows, values).values[0])
    told = method.estimate(game, rows, np.zeros((len(rows), 2))).standard_errors
    np.testing.assert_allclose(told[0], np.linalg.norm(weights, axis=0))
    of_all = -np.sum(weights, axis=0)
    np.testing.assert_allclose(told[1], np.hypot(np.linalg.norm(weights, axis=0), of_all))


@pytest.mark.parametrize("method", [Shapley(), Banzhaf(), LShap(), SlidingWindow()])
def test_a_value_that_is_lost_widens_what_is_left(method):
    n = 5
    clean = np.repeat(every(n).sum(axis=1, keepdims=True), 2, axis=1).astype(float)
    clean[(every(n) == [False, True, True, True, True]).all(axis=1), 1] = np.nan
    scores = run(method, clean, noisy_game(n, noise=np.ones(2), noise_all=np.ones(2)))
    told = scores.standard_errors
    np.testing.assert_array_equal(np.isnan(told), np.isnan(scores.values))
    left = ~np.isnan(told[1])
    assert (told[1][left] >= told[0][left] - 1e-12).all()
