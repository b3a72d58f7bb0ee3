# SPDX-License-Identifier: Apache-2.0
"""ReAGent: log-odds updates by random replacements, and when they end."""

import json

import numpy as np
import pytest
from support.games_known import make_game, play

from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.methods.reagent import Reagent


def needs(units, n, full=0.9):
    """The probability of the output: full while all of these units are there."""
    return lambda rows: np.where(rows[:, units].all(axis=1), full, 0.1)


def test_scores_are_the_mean_log_odds_of_the_replacements():
    value = needs([3], 10)
    scores, asked = play(Reagent(samples=40, tolerance=0, keep=1, replaced=0.2), value, 10)
    replaced = asked[asked.sum(axis=1) == 8]
    assert len(replaced) == scores.details["replacements"]
    expected = np.zeros(10)
    for row in replaced:
        drop = 0.9 - value(row[None])[0]
        update = np.log((drop + 1) / 2) - np.log(1 - (drop + 1) / 2)
        expected += np.where(row, -update, update) / len(replaced)
    np.testing.assert_allclose(scores.values[0], expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_units_that_matter_come_first_and_then_it_stops(seed):
    value = needs([4, 17], 30)
    scores, asked = play(Reagent(samples=300, keep=2), value, 30, seed=seed)
    assert set(np.argsort(-scores.values[0])[:2]) == {4, 17}
    assert scores.details["kept_the_output"]
    assert len(asked) < 300
    alone = asked[-1]
    assert sorted(np.flatnonzero(alone)) == [4, 17]


def test_it_goes_on_while_the_strongest_do_not_keep_the_output():
    scores, asked = play(Reagent(samples=50, keep=1), needs([1, 2], 12), 12)
    assert not scores.details["kept_the_output"]
    assert len(asked) == scores.details["samples"] == 50


def test_a_share_of_the_units_is_replaced():
    for share, size in ((0.3, 3), (0.01, 1), (0.95, 10)):
        _, asked = play(Reagent(samples=20, replaced=share, keep=1), needs([0], 10), 10)
        first = asked[: min(8, len(asked) - 1)]
        assert (first.sum(axis=1) == 10 - size).all()


def test_a_unit_that_works_against_the_output_scores_negative():
    value = lambda rows: np.where(rows[:, 5], 0.3, 0.9)  # noqa: E731
    scores, _ = play(Reagent(samples=80, keep=1, tolerance=0.0), value, 10)
    assert scores.values[0].argmin() == 5
    assert scores.values[0, 5] < 0


def test_effects_beyond_one_are_clipped_and_said():
    scores, _ = play(Reagent(samples=30), lambda rows: 40.0 * rows[:, 2], 10)
    assert np.isfinite(scores.values).all()
    assert np.abs(scores.values).max() <= np.log(1999) + 1e-9
    assert scores.details["clipped"] > 0
    assert "'prob-diff'" in scores.warnings[0]
    assert play(Reagent(samples=30), needs([2], 10), 10)[0].warnings == ()


def test_each_column_has_its_own_scores_and_unknown_values_update_nothing():
    def value(rows):
        lead, other = needs([1, 2], 9)(rows), needs([6], 9)(rows)
        return np.column_stack(
            [lead, np.where(rows[:, 0], other, np.nan), np.full(len(rows), np.nan)]
        )

    scores, _ = play(Reagent(samples=80, keep=1, tolerance=0), value, 9)
    alone, _ = play(Reagent(samples=80, keep=1, tolerance=0), needs([1, 2], 9), 9)
    np.testing.assert_allclose(scores.values[0], alone.values[0])
    assert scores.values[1].argmax() == 6
    assert np.isnan(scores.values[2]).all()


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_few_units_end_when_all_replacements_were_tried(n):
    scores, asked = play(Reagent(), lambda rows: 0.5 * rows[:, 0], n)
    assert len(asked) < 2**n
    assert scores.values[0].argmax() == 0
    assert np.isfinite(scores.values).all()


@pytest.mark.parametrize("n", [1, 5, 40])
def test_a_constant_game_scores_zero_and_stops_at_once(n):
    scores, asked = play(Reagent(), lambda rows: np.full(len(rows), 0.7), n)
    assert scores.values.tolist() == [[0.0] * n]
    assert len(asked) <= 9


@pytest.mark.parametrize("allowed", [8, 9, 10, 17, 26])
def test_a_budget_is_kept(allowed):
    _, asked = play(Reagent(keep=1), needs([1, 2], 12), 12, max_calls=allowed)
    assert len(asked) <= allowed


def test_what_it_accepts():
    with pytest.raises(BudgetTooSmallError, match="reagent needs 8 calls"):
        next(Reagent().plan(make_game(10, max_calls=7)))
    for wrong in (
        {"replaced": 0},
        {"replaced": 1.0},
        {"keep": 0},
        {"tolerance": -1},
        {"samples": 0},
    ):
        with pytest.raises(ConfigError, match=str(next(iter(wrong)))):
            Reagent(**wrong)


def test_the_seed_decides_and_details_are_plain():
    runs = [play(Reagent(samples=60), needs([1, 2], 20), 20, seed=s)[0] for s in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0].values, runs[1].values)
    assert (runs[0].values != runs[2].values).any()
    assert json.loads(json.dumps(dict(runs[0].details)))["index"] == "reagent"
