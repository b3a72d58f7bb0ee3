# SPDX-License-Identifier: Apache-2.0
"""Multi-level: spends its calls where it matters, and keeps the rest random."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.games_known import exact_banzhaf, play

from pizza.errors import BudgetTooSmallError, ConfigError
from pizza.methods.context_cite import ContextCite
from pizza.methods.multi_level import MultiLevel


def document(messages=2, paragraphs=4, sentences=5, words=10):
    """Groups of a document of messages x paragraphs x sentences x words."""
    unit = np.arange(messages * paragraphs * sentences * words)
    sentence = unit // words
    paragraph = sentence // sentences
    return np.column_stack([paragraph // paragraphs, paragraph, sentence])


def test_the_word_that_matters_is_found_among_400_with_64_calls():
    groups = document()
    weights = np.zeros(400)
    weights[137] = 4.0
    scores, asked = play(MultiLevel(), lambda r: r @ weights, 400, groups=groups, max_calls=64)
    assert scores.values[0].argmax() == 137
    assert scores.values[0, 137] == pytest.approx(4.0, abs=0.3)
    assert len(asked) == 64 == scores.details["samples"]
    assert scores.details["levels"][0]["blocks"] == 8  # paragraphs: 40 sentences are too many


def test_evidence_that_is_repeated_elsewhere_is_found_twice():
    groups = document()

    def value(rows):
        return 5.0 * (rows[:, 42] | rows[:, 377])

    scores, _ = play(MultiLevel(), value, 400, groups=groups, max_calls=160)
    assert set(np.argsort(-scores.values[0])[:2]) == {42, 377}


def test_clustered_evidence_costs_fewer_calls_than_flat_halves():
    groups = document()
    rng = np.random.default_rng(0)
    ours, flat = [], []
    for seed in range(4):
        weights = np.zeros(400)
        start = 10 * rng.integers(40)
        weights[start : start + 10] = rng.gamma(2.0, 0.5, 10)
        for method, errors in ((MultiLevel(), ours), (ContextCite(), flat)):
            scores, _ = play(
                method, lambda r, w=weights: r @ w, 400, groups=groups, max_calls=80, seed=seed
            )
            errors.append(((scores.values[0] - weights) ** 2).sum() / (weights**2).sum())
    assert np.median(ours) < np.median(flat)


def test_coalitions_keep_groups_whole_until_they_matter():
    groups = document()
    weights = np.zeros(400)
    weights[137] = 4.0
    scores, asked = play(MultiLevel(), lambda r: r @ weights, 400, groups=groups, max_calls=64)
    first = asked[: scores.details["levels"][0]["samples"]]
    by_paragraph = first.reshape(len(first), 8, 50)
    assert (by_paragraph.all(axis=2) | ~by_paragraph.any(axis=2)).all()
    last = asked[-scores.details["levels"][-1]["samples"] :]
    # Paragraphs far from the word stay whole, and stay random: neither all present nor all absent.
    other = last.reshape(len(last), 8, 50)[:, 7]
    assert (other.all(axis=1) | ~other.any(axis=1)).all()
    assert 0.2 < other[:, 0].mean() < 0.8


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, 100))
def test_all_coalitions_give_the_exact_banzhaf_values(n, seed):
    values = np.random.default_rng(seed).normal(size=2**n)
    game = lambda rows: values[rows @ (1 << np.arange(n))]  # noqa: E731
    scores, _ = play(MultiLevel(), game, n)
    np.testing.assert_allclose(scores.values[0], exact_banzhaf(game, n), atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 300), st.integers(8, 80), st.integers(0, 3))
def test_any_structure_stays_within_the_budget(n, calls, seed):
    rng = np.random.default_rng(seed)
    sentence = np.sort(rng.integers(0, max(1, n // 6), n))
    groups = np.column_stack([sentence // 20, sentence // 4, sentence])
    weights = rng.normal(size=n)
    scores, asked = play(MultiLevel(), lambda r: r @ weights, n, groups=groups, max_calls=calls)
    assert len(asked) <= calls
    assert np.isfinite(scores.values).all()


def test_without_structure_neighbours_are_grouped():
    weights = np.zeros(500)
    weights[321] = 3.0
    scores, asked = play(MultiLevel(), lambda r: r @ weights, 500, max_calls=100)
    assert abs(int(scores.values[0].argmax()) - 321) <= 3
    assert len(asked) == 100


def test_with_calls_enough_it_looks_at_single_units_at_once():
    scores, asked = play(MultiLevel(samples=80), lambda r: r @ np.arange(20.0), 20)
    assert len(asked) == 80
    assert [level["blocks"] for level in scores.details["levels"]] == [20]
    np.testing.assert_allclose(scores.values[0], np.arange(20.0), atol=0.3)


def test_a_constant_game_scores_zero_and_an_unknown_column_nothing():
    def value(rows):
        return np.column_stack([np.full(len(rows), 1.0), np.full(len(rows), np.nan)])

    scores, _ = play(MultiLevel(samples=40), value, 400, groups=document())
    assert (scores.values[0] == 0).all()
    assert np.isnan(scores.values[1]).all()


def test_it_says_what_it_accepts_and_needs():
    with pytest.raises(ConfigError, match="not 0"):
        MultiLevel(keep=0)
    with pytest.raises(BudgetTooSmallError, match="multi-level needs 8 calls"):
        play(MultiLevel(), lambda rows: rows[:, 0], 20, max_calls=7)


def test_tokens_are_scored_alike_and_do_not_change_the_whole():
    weights = np.zeros(60)
    weights[[7, 8, 31]] = 2.0, -1.0, 3.0

    def value(rows):
        sums = rows @ weights
        return np.column_stack([sums, 2 * sums, np.where(rows[:, 0], sums, np.nan)])

    alone, asked = play(MultiLevel(), lambda rows: rows @ weights, 60, max_calls=80)
    scores, same = play(MultiLevel(), value, 60, max_calls=80)
    np.testing.assert_array_equal(asked, same)
    np.testing.assert_allclose(scores.values[0], alone.values[0], atol=1e-9)
    np.testing.assert_allclose(scores.values[1], 2 * scores.values[0], atol=1e-6)
    np.testing.assert_allclose(scores.values[2, 31], 3.0, atol=0.5)
