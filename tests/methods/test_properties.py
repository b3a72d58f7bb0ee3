# SPDX-License-Identifier: Apache-2.0
"""What holds for methods by their axioms: linear games, symmetry, dummies, efficiency."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.games_known import make_game, play

from pizza.methods.banzhaf import Banzhaf
from pizza.methods.c_lime import CLime
from pizza.methods.context_cite import ContextCite
from pizza.methods.faith_shap import FaithShap
from pizza.methods.kernel_shap import KernelShap
from pizza.methods.l_shap import LShap
from pizza.methods.leave_one_out import LeaveOneOut
from pizza.methods.leverage_shap import LeverageShap
from pizza.methods.lime import Lime
from pizza.methods.multi_level import MultiLevel
from pizza.methods.odd_shap import OddShap
from pizza.methods.paired_sparse_shap import PairedSparseShap
from pizza.methods.pairwise_interactions import PairwiseInteractions
from pizza.methods.partition_shap import PartitionShap
from pizza.methods.proxy_spex import ProxySpex
from pizza.methods.random_ablation import RandomAblation
from pizza.methods.regression_msr import RegressionMsr
from pizza.methods.shapley import Shapley
from pizza.methods.svarm import Svarm

SHAPLEY = [Shapley, KernelShap, LeverageShap, PairedSparseShap, OddShap, RegressionMsr, Svarm]
BANZHAF = [
    Banzhaf, Lime, ContextCite, RandomAblation, PairwiseInteractions, ProxySpex, MultiLevel
]  # fmt: skip
NEAR = [LeaveOneOut, LShap, CLime]
EVERY = [*SHAPLEY, *BANZHAF, *NEAR, FaithShap, PartitionShap]

# These conclude from the coalitions, whatever the order of the units.
BLIND = [Shapley, Banzhaf, KernelShap, LeverageShap, Svarm, Lime, RandomAblation, ContextCite]

games = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.integers(-9, 9), min_size=2**n, max_size=2**n)
)


def whole(method, value, n):
    """Scores from all coalitions."""
    return play(method(), value, n, max_calls=2**n - 1)[0].values[0]


def from_table(table):
    table = np.asarray(table, dtype=float)
    n = len(table).bit_length() - 1
    return (lambda rows: table[rows @ (1 << np.arange(n))]), n


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=7))
@pytest.mark.parametrize("method", EVERY)
def test_a_linear_game_is_recovered_exactly(method, weights):
    weights = np.array(weights, dtype=float)
    n = len(weights)
    scores = whole(method, lambda rows: rows @ weights, n)
    if method is PartitionShap and n > 3:
        # What its calls leave whole is shared equally.
        assert scores.sum() == pytest.approx(weights.sum())
        return
    np.testing.assert_allclose(scores, weights, atol=1e-9)


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 6), st.integers(0, 999), st.data())
@pytest.mark.parametrize("method", [*SHAPLEY, *BANZHAF, FaithShap, LeaveOneOut])
def test_exchangeable_units_score_the_same_and_a_dummy_nothing(method, n, seed, data):
    a, b, dummy = data.draw(st.permutations(range(n)).map(lambda p: (*p, *p)[:3]))
    table = np.random.default_rng(seed).normal(size=(n + 1, 3))

    def value(rows):
        twins = rows[:, a].astype(int) + rows[:, b]
        others = rows.sum(axis=1) - twins - (rows[:, dummy] if n > 2 else 0)
        return table[others, twins]

    scores = whole(method, value, n)
    assert scores[a] == pytest.approx(scores[b], abs=1e-9)
    # LIME's kernel counts a dummy as a unit, so it sees it through the sizes that it makes.
    if n > 2 and method is not Lime:
        assert scores[dummy] == pytest.approx(0, abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(games)
@pytest.mark.parametrize("method", [*SHAPLEY, PartitionShap])
def test_scores_share_out_the_value_of_all_units(method, table):
    value, n = from_table(table)
    assert whole(method, value, n).sum() == pytest.approx(table[-1] - table[0], abs=1e-9)


@pytest.mark.parametrize("method", [*SHAPLEY[1:-1], PartitionShap])
@pytest.mark.parametrize("samples", [31, 101, 301])
def test_so_they_do_from_samples(method, samples):
    value, n = from_table(np.random.default_rng(samples).normal(size=2**12))
    scores, _ = play(method(samples=samples), value, n, seed=1)
    expected = value(np.ones((1, n), dtype=bool)) - value(np.zeros((1, n), dtype=bool))
    assert scores.values[0].sum() == pytest.approx(expected[0], abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(games, games)
@pytest.mark.parametrize("method", [Shapley, Banzhaf, LeaveOneOut, LShap, CLime, FaithShap, Svarm])
def test_scores_of_a_sum_of_games_are_the_sum_of_the_scores(method, first, second):
    size = min(len(first), len(second))
    (one, n), (two, _) = from_table(first[:size]), from_table(second[:size])
    together = whole(method, lambda rows: one(rows) - 2 * two(rows), n)
    np.testing.assert_allclose(
        together, whole(method, one, n) - 2 * whole(method, two, n), atol=1e-8
    )


@settings(deadline=None, max_examples=10)
@given(st.permutations(range(8)), st.integers(0, 99))
@pytest.mark.parametrize("method", BLIND)
def test_the_order_of_the_units_does_not_matter(method, order, seed):
    n = 8
    value, _ = from_table(np.random.default_rng(seed).normal(size=2**n))
    options = {} if method in (Shapley, Banzhaf) else {"samples": 81}
    scores, rows = play(method(**options), value, n, seed=seed)
    values = (value(rows) - value(np.ones((1, n), dtype=bool)))[:, None]
    moved = method(**options).estimate(make_game(n, seed=seed), rows[:, order], values)
    # A LASSO is found by descent, so to its tolerance.
    close = 0.02 if method is ContextCite else 1e-9
    np.testing.assert_allclose(moved.values[0], scores.values[0][list(order)], atol=close)
