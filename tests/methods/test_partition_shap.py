# SPDX-License-Identifier: Apache-2.0
"""Partition SHAP: Owen values over messages, paragraphs, sentences and neighbours."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.games_known import Moebius, exact_shapley, play

from pizza.methods.partition_shap import PartitionShap

FLAT = np.zeros((6, 3), dtype=np.int64)
NESTED = np.array(
    # message, paragraph, sentence
    [[0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 2], [0, 1, 2], [1, 2, 3]]
)


def halves(groups):
    """The hierarchy by hand: nested pairs of units, cut where the docstring says."""

    def tree(units):
        if len(units) == 1:
            return units[0]
        middle = (units[0] + units[-1] + 1) / 2
        for level in range(3):
            cuts = [u for u in units[1:] if groups[u][level] != groups[u - 1][level]]
            if cuts:
                cut = min(cuts, key=lambda u: (abs(u - middle), u))
                break
        else:
            cut = int(middle)
        return tree([u for u in units if u < cut]), tree([u for u in units if u >= cut])

    return tree(list(range(len(groups))))


def orders(tree):
    """All orders in which every part of the tree joins as a block."""
    if isinstance(tree, int):
        return [[tree]]
    left, right = map(orders, tree)
    return [a + b for a in left for b in right] + [b + a for a in left for b in right]


def owen(value, groups):
    """The mean gain over those orders (Owen 1977), all equally likely."""
    n = len(groups)
    allowed = orders(halves(groups))
    result = np.zeros(n)
    for order in allowed:
        present = np.zeros((1, n), dtype=bool)
        for unit in order:
            before = value(present)[0]
            present[0, unit] = True
            result[unit] += (value(present)[0] - before) / len(allowed)
    return result


def table_game(n, seed):
    table = np.random.default_rng(seed).normal(size=2**n)
    return lambda rows: table[rows @ (1 << np.arange(n))]


def test_the_hierarchy_is_cut_at_the_coarsest_boundary():
    assert halves(NESTED) == ((((0, 1), 2), (3, 4)), 5)
    assert halves(FLAT) == ((0, (1, 2)), (3, (4, 5)))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=1, max_size=6), st.integers(0, 99))
def test_with_calls_enough_the_scores_are_owen_values(steps, seed):
    groups = np.cumsum(np.array(steps), axis=0)
    value = table_game(len(steps), seed)
    scores, asked = play(PartitionShap(), value, len(steps), groups=groups)
    np.testing.assert_allclose(scores.values[0], owen(value, groups), atol=1e-12)
    assert scores.details["unsplit"] == 0
    assert scores.details["samples"] == len(asked)


def test_two_and_three_units_make_owen_values_shapley_values():
    for n in (2, 3):
        value = table_game(n, n)
        groups = np.zeros((n, 3), dtype=np.int64)
        scores, _ = play(PartitionShap(), value, n, groups=groups)
        expected = exact_shapley(value, n) if n == 2 else owen(value, groups)
        np.testing.assert_allclose(scores.values[0], expected, atol=1e-12)


def test_interactions_inside_one_half_do_not_depend_on_the_hierarchy():
    game = Moebius(8, {(0,): 1.0, (2, 3): 4.0, (5,): -2.0, (6, 7): 3.0})
    scores, _ = play(PartitionShap(), game, 8)
    np.testing.assert_allclose(scores.values[0], game.shapley(), atol=1e-12)


def test_one_unit_among_many_is_found_with_few_calls():
    weights = np.zeros(64)
    weights[37] = 8.0
    # At each of the six depths, the one node that has an effect is split in all of its contexts.
    needed = 1 + 2 * (1 + 2 + 4 + 8 + 16 + 32)
    scores, asked = play(PartitionShap(samples=needed), lambda rows: rows @ weights, 64)
    assert scores.values[0].tolist() == weights.tolist()
    assert len(asked) == needed


def test_what_the_budget_leaves_whole_is_shared_equally():
    weights = np.array([1.0, 3.0, 10.0, 20.0])
    scores, asked = play(PartitionShap(samples=3), lambda rows: rows @ weights, 4)
    assert scores.values[0].tolist() == [2.0, 2.0, 15.0, 15.0]
    assert len(asked) == 3
    assert scores.details["unsplit"] == 4


def test_the_largest_share_is_split_first():
    weights = np.array([1.0, 3.0, 10.0, 20.0])
    scores, _ = play(PartitionShap(samples=7), lambda rows: rows @ weights, 4)
    # Only the right half was split, in both contexts.
    assert scores.values[0].tolist() == [2.0, 2.0, 10.0, 20.0]


def test_messages_are_told_apart_before_words():
    groups = np.array([[0, 0, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]])
    weights = np.array([7.0, 1.0, 2.0, 3.0, 2.0])
    scores, _ = play(PartitionShap(samples=3), lambda rows: rows @ weights, 5, groups=groups)
    assert scores.values[0].tolist() == [7.0, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("lost", [[True, True, False, False], [False, True, False, False]])
def test_a_split_without_a_value_is_not_made_in_that_column(lost):
    weights = np.array([1.0, 3.0, 10.0, 20.0])

    def value(rows):
        whole = rows @ weights
        return np.column_stack([whole, np.where((rows == lost).all(axis=1), np.nan, whole)])

    scores, _ = play(PartitionShap(), value, 4)
    np.testing.assert_allclose(scores.values[0], weights)
    assert scores.values[1].sum() == pytest.approx(34.0)
    if sum(lost) == 2:  # the first split
        assert scores.values[1].tolist() == [8.5] * 4
    else:  # units 0 and 1 apart when 2 and 3 are absent: half of what they have
        np.testing.assert_allclose(scores.values[1], [1.5, 2.5, 10.0, 20.0])


def test_the_whole_output_decides_what_is_split():
    weights = np.array([[1.0, 3.0, 10.0, 20.0], [100.0, -300.0, 0.0, 1.0]])
    scores, _ = play(PartitionShap(samples=7), lambda rows: rows @ weights.T, 4)
    assert scores.values[1].tolist() == [-100.0, -100.0, 0.0, 1.0]
