# SPDX-License-Identifier: Apache-2.0
"""Methods that also conclude from coalitions that they did not choose."""

import numpy as np
import pytest
from support.games_known import (
    Known,
    every,
    exact_shapley,
    make_game,
    play,
    random_moebius,
    relative_error,
)

from pizza.errors import ConfigError
from pizza.methods.auto import Auto
from pizza.methods.banzhaf import Banzhaf
from pizza.methods.context_cite import ContextCite
from pizza.methods.hierarchical import Hierarchical
from pizza.methods.kernel_shap import KernelShap
from pizza.methods.leave_one_out import LeaveOneOut
from pizza.methods.leverage_shap import LeverageShap
from pizza.methods.lime import Lime
from pizza.methods.odd_shap import OddShap
from pizza.methods.paired_sparse_shap import PairedSparseShap
from pizza.methods.pairwise_interactions import PairwiseInteractions
from pizza.methods.partition_shap import PartitionShap
from pizza.methods.random_ablation import RandomAblation
from pizza.methods.regression_msr import RegressionMsr
from pizza.methods.shapley import Shapley
from pizza.methods.shapley_sampling import ShapleySampling
from pizza.methods.sliding_window import SlidingWindow
from pizza.methods.svarm import Svarm

HALVES = [ContextCite, Lime, RandomAblation, PairwiseInteractions]
PAIRED = [KernelShap, LeverageShap, PairedSparseShap, OddShap, RegressionMsr]
EXACT = [Shapley, Banzhaf]
ALL = [*HALVES, *PAIRED, *EXACT, Svarm, LeaveOneOut]


def measured(method, value, n, **options):
    """What a method asked for, the values, and the game."""
    _, rows = play(method, value, n, **options)
    full = np.ones((1, n), dtype=bool)
    values = (value(rows) - value(full)).reshape(len(rows), -1)
    return make_game(n, values.shape[1], **options), rows, values


def same(a, b):
    np.testing.assert_allclose(a.values, b.values, atol=1e-12, rtol=0)
    assert (a.standard_errors is None) == (b.standard_errors is None)
    if a.standard_errors is not None:
        np.testing.assert_allclose(a.standard_errors, b.standard_errors, atol=1e-12, rtol=0)
    assert a.details == b.details


def two_columns(n, seed):
    games = [Known(random_moebius(n, min(n, 5), seed + k), seed=k) for k in range(2)]
    return lambda rows: np.column_stack([game(rows) for game in games])


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_from_its_own_coalitions_it_concludes_what_its_plan_does(method, n):
    value = two_columns(n, n)
    scores, _ = play(method(), value, n, seed=3)
    game, rows, values = measured(method(), value, n, seed=3)
    same(method().estimate(game, rows, values), scores)


@pytest.mark.parametrize("method", [*HALVES, *PAIRED, Svarm])
@pytest.mark.parametrize(("n", "samples"), [(12, 61), (40, 161)])
def test_so_it_does_from_samples(method, n, samples):
    value = two_columns(n, n)
    scores, _ = play(method(samples=samples), value, n, seed=3)
    game, rows, values = measured(method(samples=samples), value, n, seed=3)
    same(method().estimate(game, rows, values), scores)


@pytest.mark.parametrize("method", ALL)
def test_the_full_coalition_may_be_among_them(method):
    n = 5
    game, rows, values = measured(method(), two_columns(n, 1), n)
    rows = np.vstack([np.ones((1, n), dtype=bool), rows])
    with_full = method().estimate(game, rows, np.vstack([np.zeros((1, 2)), values]))
    same(with_full, method().estimate(game, rows[1:], values))


@pytest.mark.parametrize("method", [*PAIRED, *EXACT, LeaveOneOut])
def test_the_order_of_the_coalitions_says_nothing(method):
    n = 9
    options = {} if method in [*EXACT, LeaveOneOut] else {"samples": 81}
    game, rows, values = measured(method(**options), two_columns(n, 2), n)
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = method().estimate(game, rows[order], values[order])
    same(shuffled, method().estimate(game, rows, values))


@pytest.mark.parametrize("method", HALVES)
@pytest.mark.parametrize("source", HALVES)
def test_random_halves_serve_all_that_conclude_from_halves(method, source):
    value = Known(random_moebius(16, 4, 0))
    game, rows, values = measured(source(samples=400), value, 16)
    found = method().estimate(game, rows, values)
    assert relative_error(found.values[0], value.banzhaf()) < 0.15


@pytest.mark.parametrize("method", HALVES)
@pytest.mark.parametrize(("n", "samples"), [(30, 40), (30, 300), (120, 160), (8, 60)])
def test_what_auto_measured_serves_them(method, n, samples):
    value = Known(random_moebius(n, 4, 0))
    for seed in range(3):
        game, rows, values = measured(Auto(samples=samples), value, n, seed=seed)
        found = method().estimate(game, rows, values)
        assert np.isfinite(found.values).all()


@pytest.mark.parametrize("method", PAIRED)
@pytest.mark.parametrize("source", [KernelShap, LeverageShap])
def test_pairs_of_one_design_serve_the_others(method, source):
    value = Known(random_moebius(14, 5, 1))
    game, rows, values = measured(source(samples=301), value, 14)
    found = method().estimate(game, rows, values)
    assert relative_error(found.values[0], value.shapley()) < 0.02


@pytest.mark.parametrize("method", [KernelShap, LeverageShap, RegressionMsr])
def test_pairs_of_an_unknown_design_serve_when_they_have_all_sizes(method):
    n = 9
    value = Known(random_moebius(n, 6, 1), noise=0.0)
    rng = np.random.default_rng(0)
    half = every(n)[1 : 2 ** (n - 1)]
    errors = []
    for _ in range(40):
        rows = half[rng.permutation(len(half))[:90]]
        rows = np.vstack([np.zeros((1, n), dtype=bool), rows, ~rows])
        game = make_game(n)
        found = method().estimate(game, rows, (value(rows) - value(~rows[:1]))[:, None])
        errors.append(found.values[0] - value.shapley())
    bias, spread = np.mean(errors, axis=0), np.std(errors, axis=0)
    assert (np.abs(bias) < 4 * spread / np.sqrt(40) + 0.01).all()


def test_coalitions_without_a_complement_are_left_out_and_counted():
    n = 10
    game, rows, values = measured(KernelShap(samples=61), two_columns(n, 2), n)
    alone = np.eye(n, dtype=bool)[:1] | np.eye(n, dtype=bool)[1:4]
    extra = [row for row in alone if not (rows == row).all(axis=1).any()]
    more = np.vstack([rows, extra])
    found = KernelShap().estimate(game, more, np.vstack([values, np.full((len(extra), 2), 9.0)]))
    assert found.details["unpaired"] == len(extra) > 0
    expected = KernelShap().estimate(game, rows, values)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-12)


@pytest.mark.parametrize("method", [KernelShap, LeverageShap])
def test_without_the_empty_coalition_the_pairs_decide_alone(method):
    weights = np.arange(8.0)
    game, rows, values = measured(method(samples=61), lambda rows: rows @ weights, 8)
    found = method().estimate(game, rows[1:], values[1:])
    np.testing.assert_allclose(found.values[0], weights, atol=1e-9)


def test_leave_one_out_reads_its_rows_among_others():
    n = 6
    value = Known(random_moebius(n, 4, 0))
    game, rows, values = measured(Shapley(), value, n)
    same(LeaveOneOut().estimate(game, rows, values), play(LeaveOneOut(), value, n)[0])


def test_the_exact_values_come_from_anyones_enumeration():
    n = 6
    value = Known(random_moebius(n, 4, 0))
    for source in (KernelShap, ContextCite, Svarm):
        game, rows, values = measured(source(samples=63), value, n)
        found = Shapley().estimate(game, rows, values)
        np.testing.assert_allclose(found.values[0], exact_shapley(value, n), atol=1e-12)


WRONG = [
    (LeaveOneOut, ContextCite(samples=64), r"1[0-2] of 12 are missing"),
    (Shapley, ContextCite(samples=64), "4031 of them are missing"),
    (Banzhaf, LeaveOneOut(), "4083 of them are missing"),
    (Shapley, KernelShap(samples=61), "are missing.*'shapley'"),
    *[(method, LeaveOneOut(), "they hold 11 of 12 units on average") for method in HALVES],
    *[(method, LeverageShap(samples=201), "sizes spread") for method in HALVES],
    *[(m, LeaveOneOut(), "come with their complements|empty coalition") for m in PAIRED],
    *[(m, ContextCite(samples=64), "complements|empty coalition|of all sizes") for m in PAIRED],
    (Svarm, LeaveOneOut(), "needs the empty coalition"),
    (Svarm, PartitionShap(samples=140), "neighbouring units|there are none"),
    (ContextCite, Hierarchical(), "at least, not|on average"),
    (ContextCite, SlidingWindow(), "on average"),
    (ContextCite, ShapleySampling(samples=200), "sizes spread"),
]


@pytest.mark.parametrize(("method", "source", "said"), WRONG)
def test_coalitions_that_do_not_suit_are_refused(method, source, said):
    value = Known(random_moebius(12, 5, 0))
    game, rows, values = measured(source, value, 12)
    with pytest.raises(ConfigError, match=said):
        method().estimate(game, rows, values)


def test_blocks_are_no_random_coalitions():
    blocks = np.repeat(np.random.default_rng(0).random((80, 20)) < 0.5, 2, axis=1)
    with pytest.raises(ConfigError, match="neighbouring units are present together"):
        ContextCite().estimate(make_game(40), blocks, np.zeros((80, 1)))


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ConfigError, match=r"coalitions \(9, 4\) .* \(m, 5\) and \(m, 1\)"):
        ContextCite().estimate(make_game(5), np.zeros((9, 4), dtype=bool), np.zeros((9, 1)))


@pytest.mark.parametrize("method", [*HALVES, *PAIRED, Svarm])
def test_nothing_at_all_is_refused(method):
    with pytest.raises(ConfigError):
        method().estimate(make_game(5), np.zeros((0, 5), dtype=bool), np.zeros((0, 1)))
