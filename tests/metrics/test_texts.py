# SPDX-License-Identifier: Apache-2.0
"""Metrics of what the model wrote: exact-match, edit-distance, rouge-l, jaccard, cosine."""

from __future__ import annotations

import difflib
import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pizza.abc import Resources, TokenTable
from pizza.completion import Completion
from pizza.errors import CapabilityError, IncomparableError
from pizza.metrics._texts import lcs_kept, lcs_length, words
from pizza.metrics.cosine import Cosine
from pizza.metrics.edit import EditDistance, levenshtein
from pizza.metrics.exact import ExactMatch
from pizza.metrics.jaccard import Jaccard
from pizza.metrics.rouge import RougeL

short = st.text(st.sampled_from("abcé🍐"), max_size=12)


def said(text, tokens=()):
    return Completion(text=text, tokens=tuple(tokens))


def whole(metric, first, second):
    return metric.compare(said(first), [said(second)])[0, 0]


@given(first=short, second=short)
def test_levenshtein_by_recursion(first, second):
    @functools.cache
    def distance(i, j):
        if i == 0 or j == 0:
            return i + j
        change = first[i - 1] != second[j - 1]
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + change)

    assert levenshtein(first, second) == distance(len(first), len(second))


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [
        ("kitten", "sitting", 3),
        ("saturday", "sunday", 3),
        ("intention", "execution", 5),
        ("", "abc", 3),
        ("abc", "", 3),
        ("same", "same", 0),
        ("x" * 500 + "a" * 200, "b" * 200 + "x" * 500, 400),
    ],
)
def test_levenshtein_known_values(first, second, distance):
    assert levenshtein(first, second) == distance
    longer = max(len(first), len(second), 1)
    assert whole(EditDistance(), first, second) == pytest.approx(distance / longer)


@given(first=short, second=short)
def test_longest_common_subsequence_by_recursion(first, second):
    @functools.cache
    def longest(i, j):
        if i == 0 or j == 0:
            return 0
        if first[i - 1] == second[j - 1]:
            return longest(i - 1, j - 1) + 1
        return max(longest(i - 1, j), longest(i, j - 1))

    expected = longest(len(first), len(second))
    assert lcs_length(first, second) == expected
    kept = lcs_kept(first, second)
    assert len(kept) == len(first)
    assert sum(kept) == expected
    # What is kept really is a subsequence of the other text.
    rest = iter(second)
    assert all(c in rest for c, keep in zip(first, kept, strict=True) if keep)


@given(first=st.lists(st.integers(0, 3), max_size=30), second=st.lists(st.integers(0, 3)))
def test_kept_tokens_are_at_least_those_of_difflib(first, second):
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    blocks = sum(block.size for block in matcher.get_matching_blocks())
    assert sum(lcs_kept(first, second)) >= blocks


def test_kept_tokens():
    reference = said("2 red pears", ["2", " red", " pears"])
    outputs = [
        said("2 pears", ["2", " pears"]),
        said("3 pears, red", ["3", " pears", ",", " red"]),
        said("2 red pears"),
        said(""),
    ]
    tokens = EditDistance().compare(reference, outputs)[:, 1:]
    assert tokens[0].tolist() == [0, 1, 0]
    assert sorted(tokens[1].tolist()) == [0, 1, 1]
    assert np.isnan(tokens[2]).all()
    assert tokens[3].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't panic!", ["don", "t", "panic"]),
        ("Straße ÉCOLE e\u0301", ["strasse", "école", "e\u0301"]),
        ("我爱 Python3", ["我", "爱", "python3"]),
        ("क्षि", ["क्षि"]),
        ("?!", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_rouge_l_of_the_papers_examples():
    # Lin (2004), section 3.1: S1 against S2 and S3 (without stemming, F with beta = 1).
    one = "police killed the gunman"
    assert whole(RougeL(), one, "police kill the gunman") == pytest.approx(1 - 3 / 4)
    assert whole(RougeL(), one, "the gunman kill police") == pytest.approx(1 - 2 / 4)


@pytest.mark.parametrize("metric", [RougeL(), Jaccard()])
def test_words_in_common(metric):
    assert whole(metric, "The pears.", "the PEARS!") == 0
    assert whole(metric, "red", "blue") == 1
    assert whole(metric, "red", "") == 1
    assert whole(metric, "...", "...") == 0
    assert whole(metric, "...", "?") == 1


def test_jaccard():
    assert whole(Jaccard(), "two red red pears", "pears two green") == pytest.approx(1 - 2 / 4)


def test_exact_match():
    assert whole(ExactMatch(), "5", " 5\n") == 0
    assert whole(ExactMatch(), "5", "five") == 1
    effects = ExactMatch().compare(said("5 a", ["5", " a"]), [said("5 a")])
    assert effects[0, 0] == 0
    assert np.isnan(effects[0, 1:]).all()


def test_cosine_by_hand(table):
    reference = said("a d", ["a", " d"])
    other = said("b dc", ["b", " d", "c"])
    effects = Cosine(table=table).compare(reference, [other])
    vectors = dict(zip(table.tokens, table.embeddings, strict=True))

    def far(one, two):
        return 1 - one @ two / np.sqrt((one @ one) * (two @ two))

    means = (vectors["a"] + vectors[" d"]) / 2, (vectors["b"] + vectors[" d"] + vectors["c"]) / 3
    np.testing.assert_allclose(effects, [[far(*means), far(vectors["a"], vectors["b"]), 0.0]])


def test_cosine_finds_a_token_without_its_blank(table):
    effects = Cosine(table=table).compare(said("d", ["d"]), [said(" d", [" d"])])
    np.testing.assert_allclose(effects[0, 1], 0, atol=1e-12)


def test_cosine_of_tokens_that_the_table_lacks(table):
    effects = Cosine(table=table).compare(
        said("ax<end>", ["a", "x", "<end>"]), [said("axb", ["a", "x", "b"]), said("x", ["x"])]
    )
    assert effects[0, 1:3].tolist() == [0, 0]
    assert np.isnan(effects[0, 3])
    assert effects[1, 0] == 1
    assert np.isnan(effects[1, 1:]).all()


def test_cosine_takes_the_backends_table(table):
    def no_table() -> TokenTable:
        raise CapabilityError("none", needed="embeddings", backend="test")

    with pytest.raises(IncomparableError, match="prepare"):
        Cosine().compare(said("a", ["a"]), [])
    metric = Cosine()
    metric.prepare(Resources(tokenizer=no_table, token_table=lambda: table))
    assert metric.compare(said("a", ["a"]), [said("b", ["b"])])[0, 0] > 0
    with pytest.raises(CapabilityError):
        Cosine().prepare(Resources(tokenizer=no_table, token_table=no_table))
    Cosine(table=table).prepare(Resources(tokenizer=no_table, token_table=no_table))


def test_cosine_needs_output_tokens(table):
    with pytest.raises(IncomparableError, match="no output tokens"):
        Cosine(table=table).compare(said("a", ["a"]), [said("a")])
