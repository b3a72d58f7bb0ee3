# SPDX-License-Identifier: Apache-2.0
"""What measures share is paid once, and a budget is kept."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.games_known import random_moebius

from pizza.errors import BudgetTooSmallError, ConfigError, UnknownNameError
from pizza.evaluation.case import Case
from pizza.evaluation.catalog import MEASURES, USUAL, named
from pizza.evaluation.plan import suited

ALL = [name for name in USUAL if name != "shapley-correlation"]


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25
)
@given(st.integers(3, 120), st.integers(1, 700), st.integers(0, 9))
def test_a_budget_is_kept_or_the_least_is_named(examine, n, budget, seed):
    game, scores = random_moebius(n, min(n, 6), seed=seed), np.arange(float(n))
    refused = None
    try:
        found = examine(ALL, game, scores, budget=budget, seed=seed)
    except BudgetTooSmallError as error:
        refused = error
        found = examine(ALL, game, scores, budget=error.needed, seed=seed)
    assert refused is None or refused.allowed == budget < refused.needed
    assert len(found.paid) <= max(budget, refused.needed if refused else 0)


def test_a_larger_budget_is_used(examine):
    game, scores = random_moebius(100, 10, seed=1), np.arange(100.0)
    small, usual, large = (examine(ALL, game, scores, budget=budget) for budget in (100, 256, 500))
    assert len(small.paid) == 100
    assert len(usual.paid) == 256
    assert small.effort.held_out < usual.effort.held_out < large.effort.held_out
    assert small.effort.orders < usual.effort.orders < large.effort.orders
    assert usual["lds"].standard_error < small["lds"].standard_error


def test_no_more_is_spent_than_helps(examine):
    found = examine(["completeness-error", "top-k-drop"], random_moebius(9, 4, seed=1), np.ones(9))
    assert len(found.paid) <= 1 + 11 * 3


def test_the_error_names_what_fits(examine):
    with pytest.raises(BudgetTooSmallError, match="fit one by one") as caught:
        examine(ALL, random_moebius(40, 5, seed=1), np.arange(40.0), budget=7)
    fits = re.search(r"one by one: (.*)\.$", str(caught.value))[1]
    assert "completeness-error (1)" in fits
    assert "deletion (4)" in fits
    assert "lds" not in fits


def test_shared_coalitions_are_paid_once(examine):
    game, scores = random_moebius(30, 5, seed=1), np.arange(30.0)

    def paid(*measures, budget=40):
        return {row.tobytes() for row in examine(list(measures), game, scores, budget=budget).paid}

    assert paid("lds") == paid("infidelity") == paid("lds", "infidelity")
    assert paid("completeness-error") <= paid("deletion")
    # The control of an insertion is that of a deletion: keeping the last is removing the first.
    one, other = paid("deletion", budget=200), paid("insertion", budget=200)
    both = paid("deletion", "insertion", budget=200)
    assert len(both) == len(one | other) <= len(one) + 19


def test_an_enumeration_holds_everything_else(examine):
    found = examine(list(USUAL), random_moebius(6, 4, seed=1), np.arange(6.0), budget=63)
    assert len(found.paid) == 63


def test_known_values_are_not_asked_for_again(examine):
    game, scores = random_moebius(8, 4, seed=2), np.arange(8.0)
    rows = ~np.eye(8, dtype=bool)
    found = examine("tau-loo", game, scores, known=rows, budget=0)
    assert len(found.paid) == 0
    assert found["tau-loo"].value == examine("tau-loo", game, scores)["tau-loo"].value


def test_what_the_attribution_used_is_not_held_out(examine):
    game, scores = random_moebius(6, 4, seed=2), np.arange(6.0)
    used = np.random.default_rng(0).random((30, 6)) < 0.5
    found = examine("lds", game, scores, used=used)
    assert not {r.tobytes() for r in found.paid} & {r.tobytes() for r in used}


def test_when_everything_was_used_nothing_is_held_out(examine):
    used = (np.arange(16)[:, None] >> np.arange(4) & 1).astype(bool)
    with pytest.raises(ConfigError, match="and 0 of 15 are left"):
        examine("lds", random_moebius(4, 3, seed=1), np.arange(4.0), used=used)


def test_usual_measures_that_do_not_suit_are_left_out_and_said():
    case = Case(scores=np.arange(2.0), used=frozenset())
    found, why = suited(named(USUAL), case, 256)
    assert [m.name for m in found] == [*ALL[1:6], "completeness-error", "shapley-correlation"]
    assert [text.partition(" ")[0] for text in why] == ["lds", "infidelity"]
    large = suited(named(USUAL), Case(scores=np.arange(30.0)), 256)
    assert ([m.name for m in large[0]], large[1]) == (ALL, [])
    tight = suited(named(USUAL), Case(scores=np.arange(9.0)), 256)
    assert "shapley-correlation" not in [m.name for m in tight[0]]


def test_ten_thousand_units_cost_no_more_calls(examine):
    weights = np.zeros(10_000)
    weights[:50] = 1.0
    found = examine(ALL, lambda rows: rows @ weights, weights)
    assert len(found.paid) <= 256
    assert found["lds"].value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("measures", "error", "said"),
    [
        ("ldss", UnknownNameError, "Did you mean 'lds'"),
        ("lds:q=1", ConfigError, "It takes: p"),
        ("deletion:p=1", ConfigError, "It takes: none"),
        ("lds:p=1", ConfigError, "between 0 and 1, not 1"),
        ("infidelity:p=x", ConfigError, "between 0 and 1, not 'x'"),
        ("shapley-correlation:limit=40", ConfigError, "2 to 20 units, not 40"),
        (["lds", "lds"], ConfigError, "named twice"),
        ([], ConfigError, "no measure was named"),
        ([3], ConfigError, "not 3"),
    ],
)
def test_wrong_names_and_options(measures, error, said):
    with pytest.raises(error, match=re.escape(said)):
        named(measures)


def test_too_many_units_to_enumerate_is_said(examine):
    with pytest.raises(ConfigError, match="at most 10 units"):
        examine("shapley-correlation", random_moebius(12, 3, seed=1), np.arange(12.0))


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_says_what_it_needs(examine, name):
    fewest, most = MEASURES[name]().calls(7)
    found = examine(name, random_moebius(7, 4, seed=1), np.arange(7.0), budget=fewest)
    assert len(found.paid) <= fewest
    found = examine(name, random_moebius(7, 4, seed=1), np.arange(7.0), budget=10_000)
    assert len(found.paid) <= most
