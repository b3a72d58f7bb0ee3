# SPDX-License-Identifier: Apache-2.0
"""Each measure against enumeration, arithmetic by hand, or plain numpy and scipy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats
from support.games_known import every, exact_shapley, random_moebius

from pizza import coalition
from pizza.errors import ConfigError
from pizza.evaluation.case import Case
from pizza.evaluation.tau_loo import kendall

SUMS = ["lds", "infidelity", "completeness-error", "shapley-correlation", "tau-loo"]
ORDERS = ["deletion", "insertion", "comprehensiveness", "sufficiency", "top-k-drop"]
fixture_once = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25
)


def linear(weights):
    weights = np.asarray(weights, dtype=float)
    return lambda rows: rows @ weights


@fixture_once
@given(st.lists(st.integers(-50, 50), min_size=3, max_size=8, unique=True))
def test_the_weights_of_a_linear_game_are_faithful_to_it(examine, weights):
    found = examine(SUMS, linear(weights), weights)
    assert found["lds"].value == pytest.approx(1.0)
    assert found["infidelity"].value == pytest.approx(0.0, abs=1e-18)
    assert found["completeness-error"].value == pytest.approx(0.0, abs=1e-9)
    assert found["shapley-correlation"].value == pytest.approx(1.0)
    assert found["shapley-correlation"].details["relative_squared_error"] == pytest.approx(0.0)
    assert found["tau-loo"].value == pytest.approx(1.0)


def test_curves_computed_by_hand(examine):
    """v falls by 3, 2, 1: 0, -3, -5, -6 in the best order and 0, -1, -3, -6 in the worst."""
    game = linear([3, 2, 1])
    best = examine(["deletion", "insertion"], game, [3, 2, 1])
    assert best["deletion"].details["values"] == [0, -3, -5, -6]
    assert best["insertion"].details["values"] == [-6, -3, -1, 0]
    # Trapezoids of width 1/3: -(1.5 + 4 + 5.5) / 3 = -11/3, of a fall of 6.
    assert best["deletion"].details["area"] == pytest.approx(-11 / 3)
    assert best["deletion"].value == pytest.approx(7 / 18)
    assert best["insertion"].value == pytest.approx(11 / 18)
    worst = examine(["deletion", "insertion"], game, [1, 2, 3])
    assert worst["deletion"].value == pytest.approx(11 / 18)
    assert worst["insertion"].value == pytest.approx(7 / 18)


def test_where_the_prompt_works_against_the_output_lower_is_still_better(examine):
    game = linear([-3, -2, -1])
    right = examine("deletion", game, [-3, -2, -1])["deletion"].value
    wrong = examine("deletion", game, [3, 2, 1])["deletion"].value
    assert right == pytest.approx(1 + 7 / 18)
    assert wrong == pytest.approx(1 + 11 / 18)


def test_long_curves_are_trapezoids_over_the_share_of_units(examine):
    game, scores = random_moebius(53, 20, seed=4), np.random.default_rng(1).normal(size=53)
    found = examine(["deletion"], game, scores, budget=2000)["deletion"]
    order = np.argsort(-scores)
    sizes = found.details["units"]
    assert sizes[0] == 0
    assert sizes[-1] == 53
    assert sorted(53 - k for k in sizes) == sizes
    values = []
    for size in sizes:
        row = np.ones((1, 53), dtype=bool)
        row[0, order[:size]] = False
        values.append(float(game(row)[0] - game(np.ones((1, 53), dtype=bool))[0]))
    assert found.details["values"] == pytest.approx(values)
    x = np.array(sizes) / 53
    area = sum((values[i] + values[i + 1]) / 2 * (x[i + 1] - x[i]) for i in range(len(x) - 1))
    assert found.value == pytest.approx(1 + area / abs(values[-1]))


@pytest.mark.parametrize(("n", "sizes"), [(1, [1]), (10, [1, 2, 5]), (140, [2, 7, 14, 28, 70])])
def test_comprehensiveness_and_sufficiency_are_means_over_shares(examine, n, sizes):
    game, scores = random_moebius(n, min(n, 9), seed=2), np.arange(n, dtype=float)[::-1]
    found = examine(["comprehensiveness", "sufficiency"], game, scores, log_probability=-0.5)
    full = game(np.ones((1, n), dtype=bool))[0]
    without, only = [], []
    for k in sizes:
        first = np.arange(n) < k
        without.append(full - game(~first[None])[0])
        only.append(full - game(first[None])[0])
    assert found["comprehensiveness"].details["units"] == sizes
    assert found["comprehensiveness"].value == pytest.approx(np.mean(without))
    assert found["sufficiency"].value == pytest.approx(np.mean(only))
    falls = [math.exp(-0.5) - math.exp(-0.5 - d) for d in without]
    assert found["comprehensiveness"].details["probability"] == pytest.approx(np.mean(falls))


def test_the_top_k_drop_is_per_output_token(examine):
    found = examine("top-k-drop", linear([4, 1, 2, 3, 0, 0]), [4, 1, 2, 3, 0, 0], n_tokens=2)
    result = found["top-k-drop"]
    assert result.details["units"] == [1, 3, 5]
    assert result.details["drops"] == [2.0, 4.5, 5.0]
    assert result.value == pytest.approx((2 + 4.5 + 5) / 3)
    assert result.scale == "nats per token"


def test_lds_is_spearman_over_the_coalitions_that_were_asked_for(examine):
    game, scores = random_moebius(20, 8, seed=3), np.random.default_rng(3).normal(size=20)
    found = examine("lds", game, scores, budget=90)
    rows = found.paid
    assert len(rows) == found["lds"].details["coalitions"] == 90
    assert found["lds"].value == pytest.approx(stats.spearmanr(rows @ scores, game(rows))[0])
    assert found["lds"].details["pearson"] == pytest.approx(
        stats.pearsonr(rows @ scores, game(rows))[0]
    )


def test_the_standard_error_of_lds_is_its_spread(examine):
    game, scores = random_moebius(30, 10, seed=5), np.random.default_rng(5).normal(size=30)
    runs = [examine("lds", game, scores, budget=60, seed=seed)["lds"] for seed in range(100)]
    spread = np.std([run.value for run in runs], ddof=1)
    # The spread of 100 runs is known to about 7 %.
    assert np.mean([run.standard_error for run in runs]) == pytest.approx(spread, rel=0.25)


def test_p_is_the_share_of_units_that_are_there(examine):
    found = examine("lds:p=0.9", random_moebius(60, 8, seed=1), np.arange(60.0))
    assert found.paid.mean() == pytest.approx(0.9, abs=0.02)
    assert found["lds:p=0.9"].details["p"] == 0.9


def test_infidelity_is_the_mean_square_of_what_sums_miss(examine):
    game, scores = random_moebius(15, 6, seed=6), np.random.default_rng(6).normal(size=15)
    found = examine("infidelity", game, scores, budget=64)
    rows, result = found.paid, found["infidelity"]
    lost = game(np.ones((1, 15), dtype=bool))[0] - game(rows)
    errors = ((~rows) @ scores - lost) ** 2
    assert result.value == pytest.approx(errors.mean())
    assert result.standard_error == pytest.approx(errors.std(ddof=1) / 8)
    assert result.details["normalized"] == pytest.approx(errors.mean() / lost.var())
    factor = np.linalg.lstsq(((~rows) @ scores)[:, None], lost, rcond=None)[0][0]
    assert result.details["factor"] == pytest.approx(factor)


def test_scores_in_another_unit_lose_nothing_after_rescaling(examine):
    weights = np.arange(1.0, 13.0)
    result = examine("infidelity", linear(weights), 1000 * weights)["infidelity"]
    assert result.value > 1e6
    assert result.details["rescaled"] == pytest.approx(0.0, abs=1e-20)


def test_completeness_error_is_what_the_sum_misses(examine):
    result = examine("completeness-error", linear([1, 2, 4]), [1, 1, 1])["completeness-error"]
    assert result.value == pytest.approx(4.0)
    assert result.details["relative"] == pytest.approx(4 / 7)


def test_shapley_correlation_uses_exact_values(examine):
    game, scores = random_moebius(7, 5, seed=8), np.random.default_rng(8).normal(size=7)
    result = examine("shapley-correlation", game, scores)["shapley-correlation"]
    truth = exact_shapley(game, 7)
    assert result.details["shapley"] == pytest.approx(truth)
    assert result.value == pytest.approx(stats.spearmanr(scores, truth)[0])
    error = ((scores - truth) ** 2).sum() / (truth**2).sum()
    assert result.details["relative_squared_error"] == pytest.approx(error)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30))
def test_tau_is_scipys(pairs):
    a, b = np.array(pairs, dtype=float).T
    expected = stats.kendalltau(a, b)[0]
    assert kendall(a, b) == pytest.approx(expected, nan_ok=True)


# --- controls --------------------------------------------------------------------------------


def test_the_order_of_the_scores_beats_random_orders_and_its_reverse_loses(examine):
    weights = np.linspace(0, 1, 24) ** 3
    best = examine(ORDERS, linear(weights), weights)
    worst = examine(ORDERS, linear(weights), -weights)
    for name in ORDERS:
        up = 1 if best[name].higher_is_better else -1
        assert up * best[name].value > up * best[name].random, name
        assert up * worst[name].value < up * worst[name].random, name


def test_where_no_unit_is_special_the_control_is_the_figure_itself(examine):
    found = examine([*ORDERS, "lds", "infidelity"], linear(np.ones(12)), np.ones(12))
    for name, result in found.results.items():
        assert result.random == pytest.approx(result.value, abs=1e-12), name


def test_the_control_of_a_rank_correlation_with_fixed_values_is_0(examine):
    game, scores = random_moebius(6, 4, seed=7), np.array([3.0, 1.0, 2.0, 0.5, -1.0, 0.0])
    found = examine(["shapley-correlation", "tau-loo"], game, scores)
    phi = np.array(found["shapley-correlation"].details["shapley"])
    drops = np.array(found["tau-loo"].details["drops"])
    orders = [np.array(order) for order in itertools.permutations(scores)]
    everywhere = np.mean([stats.spearmanr(order, phi)[0] for order in orders])
    assert found["shapley-correlation"].random == pytest.approx(everywhere, abs=1e-12)
    everywhere = np.mean([kendall(order, drops) for order in orders])
    assert found["tau-loo"].random == pytest.approx(everywhere, abs=1e-12)


def test_the_control_is_the_mean_over_random_orders(examine):
    result = examine("deletion", random_moebius(16, 6, seed=9), np.arange(16.0))["deletion"]
    assert len(result.details["random_orders"]) >= 3
    assert result.random == pytest.approx(np.mean(result.details["random_orders"]))


# --- what is not there -----------------------------------------------------------------------


def test_a_constant_game_has_no_ranks_and_no_area_but_nothing_is_lost(examine):
    found = examine([*SUMS, *ORDERS], lambda rows: np.zeros(len(rows)), np.arange(6.0))
    for name in ("lds", "deletion", "insertion", "shapley-correlation", "tau-loo"):
        assert math.isnan(found[name].value), name
    assert "nothing to explain" in found["lds"].warnings[0]
    for name in ("comprehensiveness", "sufficiency", "top-k-drop"):
        assert found[name].value == 0.0
    assert found["infidelity"].details["normalized"] is None
    assert found["completeness-error"].value == 15.0


def test_one_unit_works(examine):
    found = examine([*ORDERS, "completeness-error"], linear([2.0]), [2.0])
    assert found["deletion"].value == pytest.approx(0.5)
    assert found["comprehensiveness"].value == 2.0
    assert found["sufficiency"].value == 0.0
    assert len(found.paid) == 1


@pytest.mark.parametrize("measure", ["lds", "shapley-correlation", "tau-loo"])
def test_one_unit_has_no_rank(examine, measure):
    with pytest.raises(ConfigError, match="cannot be taken here"):
        examine(measure, linear([2.0]), [2.0])


def test_values_that_are_not_defined_are_left_out(examine):
    weights = np.arange(1.0, 15.0)

    def holes(rows):
        values = rows @ weights
        return np.where(rows[:, 0] | (rows.sum(axis=1) % 14 == 0), values, np.nan)

    found = examine(["lds", "infidelity", "deletion", "insertion"], holes, weights)
    assert found["lds"].value == pytest.approx(1.0)
    assert found["lds"].details["coalitions"] < len(found.paid)
    assert found["infidelity"].value == pytest.approx(0.0, abs=1e-18)
    # Unit 0 goes last: nothing is missing of the deletion, and everything of the insertion.
    assert found["deletion"].warnings == ()
    assert found["deletion"].value < 0.5
    assert "13 of 15 values are not defined" in found["insertion"].warnings[0]
    assert math.isnan(found["insertion"].value)


def test_where_no_value_is_defined_no_figure_is(examine):
    def nothing(rows):
        return np.where(rows.all(axis=1), 0.0, np.nan)

    found = examine([*SUMS, *ORDERS], nothing, np.arange(1.0, 7.0))
    assert all(math.isnan(result.value) for result in found.results.values())


def test_units_without_a_score_come_last_and_count_as_nothing(examine):
    scores = [np.nan, -5.0, 3.0]
    found = examine(["deletion", "completeness-error"], linear([1, -5, 3]), scores)
    assert found["deletion"].details["values"] == [0, -3, 2, 1]
    assert found["completeness-error"].details["sum_of_scores"] == -2.0


def test_no_score_at_all_is_refused(examine):
    with pytest.raises(ConfigError, match="no score for this row"):
        examine("lds", linear([1, 2]), [np.nan, np.nan])


# --- the coalitions --------------------------------------------------------------------------


@given(st.integers(3, 16), st.integers(0, 40), st.sampled_from([0.2, 0.5, 0.9]), st.integers(0, 99))
@settings(deadline=None)
def test_held_out_coalitions_are_new_and_fewer_are_the_first_of_more(n, n_used, p, seed):
    rows = np.random.default_rng(seed).random((n_used, n)) < 0.5
    case = Case(scores=np.zeros(n), used=frozenset(map(coalition.key, rows)), seed=seed)
    many, few = case.held_out(60, p), case.held_out(20, p)
    assert few.tolist() == many[:20].tolist()
    keys = {coalition.key(row) for row in many}
    assert len(keys) == len(many)
    assert not keys & case.used
    assert not many.all(axis=1).any()
    left = 2**n - 1 - len({coalition.key(r) for r in rows if not r.all()})
    # Above 12 units draws that bring nothing new end it, which is not before 60 of 8191.
    assert len(many) == min(60, left)


def test_small_games_are_drawn_in_proportion(examine):
    """Given 3 units present with probability 0.9 -> pairs come first nearly always."""
    first = [Case(scores=np.zeros(3), seed=seed).held_out(1, 0.9)[0].sum() for seed in range(400)]
    # Without the full coalition: 3 of 0.081, 3 of 0.009, 1 of 0.001.
    assert np.mean(np.array(first) == 2) == pytest.approx(0.243 / 0.271, abs=0.05)


def test_every_coalition_is_within_reach():
    case = Case(scores=np.zeros(4))
    assert {r.tobytes() for r in case.held_out(100, 0.5)} == {r.tobytes() for r in every(4)[:-1]}
