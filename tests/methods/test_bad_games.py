# SPDX-License-Identifier: Apache-2.0
"""Every method on games that nobody would choose: constant, incomplete, huge, or far too long."""

import importlib
import importlib.util
import tracemalloc

import numpy as np
import pytest
from support.games_known import make_game, play

from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.methods import SPECS


def _made(spec):
    module, attribute = spec.target.split(":")
    return getattr(importlib.import_module(module), attribute)


METHODS = {spec.name: _made(spec) for spec in SPECS}
GROWN = importlib.util.find_spec("lightgbm") is not None
"""Whether proxy-spex can do without all coalitions."""

# Methods that conclude from samples, or from a plan of their own, not from all coalitions.
ENUMERATING = ["shapley", "banzhaf"]
EVERYWHERE = [name for name in METHODS if name != "proxy-spex" or GROWN]
LONG = [name for name in EVERYWHERE if name not in ENUMERATING]

# Scores that are in the unit of the values.
SCALED = [name for name in EVERYWHERE if name != "reagent"]


def all_of_them(names):
    marked = {"proxy-spex": pytest.mark.peers}
    return pytest.mark.parametrize(
        "name", [pytest.param(n, marks=marked[n]) if n in marked else n for n in names]
    )


def run(name, value, n, max_calls=None, **options):
    """Scores of a method with its default options."""
    return play(METHODS[name](), value, n, max_calls=max_calls, **options)[0]


def none_or_zero(errors):
    return errors is None or np.nan_to_num(errors).max(initial=0.0) < 1e-9


def some_values(rows):
    return 2.0 * rows[:, 0] - rows[:, 1] + 1.5 * rows[:, 0] * rows[:, 2]


@all_of_them(METHODS)
@pytest.mark.parametrize("n", [4, 9])
def test_a_budget_below_the_minimum_is_refused_by_the_minimum(name, n):
    method = METHODS[name]()
    least, most = method.calls(n)
    assert 1 <= least <= most <= 2**n
    with pytest.raises(BudgetTooSmallError, match=rf"needs {least} calls for {n} units") as caught:
        next(method.plan(make_game(n, max_calls=least - 1)))
    assert (caught.value.needed, caught.value.allowed) == (least, least - 1)
    if name in EVERYWHERE or least == 2**n - 1:
        scores = run(name, some_values, n, max_calls=least)
        assert not np.isinf(scores.values).any()


@all_of_them(METHODS)
def test_one_unit_has_all_of_the_effect(name):
    scores = run(name, lambda rows: 0.5 * rows[:, 0], 1)
    expected = np.log(3) if name == "reagent" else 0.5
    np.testing.assert_allclose(scores.values, [[expected]], rtol=1e-9)


@all_of_them(METHODS)
def test_one_unit_without_effect_scores_zero(name):
    scores = run(name, lambda rows: np.ones(len(rows)), 1)
    assert scores.values.tolist() == [[0.0]]
    assert none_or_zero(scores.standard_errors)


@all_of_them(EVERYWHERE)
@pytest.mark.parametrize("n", [2, 3, 6, 12, 40])
def test_a_constant_game_scores_zero(name, n):
    if name in ENUMERATING and n > 12:
        return
    value = lambda rows: np.full((len(rows), 2), 7.0)  # noqa: E731
    scores = run(name, value, n)
    assert scores.values.tolist() == [[0.0] * n] * 2
    assert none_or_zero(scores.standard_errors)


@all_of_them(EVERYWHERE)
@pytest.mark.parametrize("n", [3, 6, 12])
def test_values_that_are_lost_are_left_out_and_a_column_without_any_is_nan(name, n):
    def value(rows):
        lead = some_values(rows)
        # One in five is lost; the whole prompt never is.
        lost = (rows @ (3 + 7 * np.arange(n))) % 5 == 1
        holes = np.where(lost & ~rows.all(axis=1), np.nan, lead)
        nothing = np.where(rows.all(axis=1), 0.0, np.nan)
        return np.column_stack([lead, holes, nothing])

    budget = 2**n - 1 if n < 12 else None
    scores = run(name, value, n, max_calls=budget)
    alone = run(name, some_values, n, max_calls=budget)
    assert np.isfinite(scores.values[0]).all()
    np.testing.assert_allclose(scores.values[0], alone.values[0], atol=1e-9)
    assert not np.isinf(scores.values[1]).any()
    assert np.isnan(scores.values[2]).all()


@all_of_them(EVERYWHERE)
@pytest.mark.parametrize("n", [3, 12])
def test_a_whole_output_without_values_is_nan_and_ends(name, n):
    def value(rows):
        whole = rows.all(axis=1)
        return np.column_stack([np.where(whole, 0.0, np.nan), some_values(rows)])

    scores = run(name, value, n, max_calls=None if n > 3 else 7)
    assert np.isnan(scores.values[0]).all()
    assert not np.isinf(scores.values[1]).any()


@all_of_them(EVERYWHERE)
def test_infinite_values_are_not_known(name):
    n = 6

    def value(rows):
        lost = (rows @ (3 + 7 * np.arange(n))) % 5 == 1
        lost &= ~rows.all(axis=1)
        lead = some_values(rows)
        return np.column_stack([lead, np.where(lost, np.inf, lead), np.where(lost, np.nan, lead)])

    scores = run(name, value, n, max_calls=63)
    assert not np.isinf(scores.values).any()
    np.testing.assert_allclose(scores.values[1], scores.values[2], atol=1e-9)


@all_of_them(SCALED)
@pytest.mark.parametrize("factor", [1e-9, 1e12, 1e50])
def test_scores_have_the_scale_of_the_values(name, factor):
    n = 9
    small = run(name, some_values, n)
    scaled = run(name, lambda rows: factor * some_values(rows), n)
    np.testing.assert_allclose(scaled.values / factor, small.values, rtol=1e-6, atol=1e-6)


@all_of_them(EVERYWHERE)
def test_two_units_that_do_the_same_score_the_same(name):
    # Either one is enough; all coalitions are within reach of methods that want them.
    n, a, b = 6, 2, 3
    value = lambda rows: (rows[:, a] | rows[:, b]) * 0.9  # noqa: E731
    scores = run(name, value, n, max_calls=63).values[0]
    loose = name in ("reagent", "shapley-sampling")
    assert scores[a] == pytest.approx(scores[b], abs=0.35 if loose else 1e-6)
    others = np.delete(scores, [a, b])
    if name not in ("leave-one-out", "sliding-window", "hierarchical", "c-lime", "reagent"):
        assert scores[a] > np.abs(others).max()


@all_of_them(EVERYWHERE)
@pytest.mark.parametrize("odd_one", [0, 5, 37])
def test_values_that_are_all_alike_but_one(name, odd_one):
    n = 6
    row = (odd_one >> np.arange(n) & 1).astype(bool)
    value = lambda rows: np.where((rows == row).all(axis=1), 1.0, 0.0)  # noqa: E731
    for budget in (None, 63):
        scores = run(name, value, n, max_calls=budget)
        assert np.isfinite(scores.values).all()
        assert np.abs(scores.values).max() <= (7.7 if name == "reagent" else 1.0 + 1e-9)


@all_of_them(LONG)
def test_ten_thousand_units_take_memory_in_proportion(name):
    n, budget = 10_000, 128
    matter = np.zeros(n)
    matter[[17, 4321]] = [3.0, -2.0]
    tracemalloc.start()
    try:
        scores = run(name, lambda rows: rows @ matter, n, max_calls=budget)
    except ConfigError as error:
        # BudgetTooSmallError is one: the method says what it would take.
        said, scores = str(error), None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 300e6
    if scores is None:
        assert "10000" in said
    else:
        assert np.isfinite(scores.values).all()
