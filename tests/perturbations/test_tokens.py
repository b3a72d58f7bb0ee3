# SPDX-License-Identifier: Apache-2.0
"""Strategies that work token by token: mask-token, random-token, nth-nearest."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pizza.abc import TokenTable
from pizza.errors import CapabilityError, ConfigError
from pizza.perturbations.mask import MaskToken
from pizza.perturbations.nearest import NthNearest
from pizza.perturbations.random_token import RandomToken
from pizza.prompt import Prompt

PROMPT = Prompt.from_text("red apples\n two pears.")


def test_one_mask_per_token(rich, words):
    # " apples" is " apple" + "s"; " pears." has three tokens; "red" at the start is r, e, d.
    units = words(PROMPT)
    assert MaskToken().replacements(PROMPT, units, rich)[1:] == [
        "[MASK] [MASK]",
        "[MASK]",
        "[MASK] [MASK] [MASK]",
    ]
    assert MaskToken("_", separator="").replacements(PROMPT, units, rich)[3] == "___"


def test_one_mask_per_unit_needs_no_tokenizer(poor, words):
    units = words(PROMPT)
    assert MaskToken("?", per="unit").replacements(PROMPT, units, poor) == ["?"] * 4
    with pytest.raises(ConfigError, match="per=unit"):
        MaskToken().replacements(PROMPT, units, poor)
    with pytest.raises(ConfigError, match="'token' or 'unit'"):
        MaskToken(per="word")


def test_random_tokens_are_as_many_as_before(rich, words):
    prompt = Prompt.from_text("box red apples two pears.")
    units = words(prompt)[1:]
    made = RandomToken().replacements(prompt, units, rich)
    count = rich.tokenizer().count
    assert [count(f" {text}") for text in made] == [1, 2, 1, 3]


def test_random_tokens_depend_on_seed_and_place_alone(rich, words):
    units = words(PROMPT)
    made = RandomToken().replacements(PROMPT, units, rich)
    assert RandomToken().replacements(PROMPT, units[2:], rich) == made[2:]
    assert RandomToken(seed=1).replacements(PROMPT, units, rich) == made
    other = [RandomToken(seed=seed).replacements(PROMPT, units, rich) for seed in range(-3, 9)]
    assert any(texts != made for texts in other)
    again = dataclasses.replace(rich, seed=2)
    assert RandomToken().replacements(PROMPT, units, again) == RandomToken(seed=2).replacements(
        PROMPT, units, rich
    )


def test_random_tokens_are_ordinary(rich, table, words):
    prompt = Prompt.from_text(" ".join(["box"] * 400))
    made = set(RandomToken().replacements(prompt, words(prompt)[1:], rich))
    assert made == {text.strip() for text in table.tokens if text.startswith(" ")} - {"", "box"}


def test_random_words_where_there_is_no_vocabulary(poor, words):
    prompt = Prompt.from_text("one two\n\nthree")
    unit = prompt.unit(0, 0, len(prompt.text))
    (made,) = RandomToken().replacements(prompt, [unit], poor)
    assert len(made.split()) == 3
    assert "\n\n" in made
    assert made.replace("\n\n", " ").replace(" ", "").isalpha()


def test_a_vocabulary_of_one_token_is_refused(poor, words):
    table = TokenTable(tokens=(" a", " "), embeddings=np.ones((2, 2)))
    with pytest.raises(ConfigError, match="at least two"):
        RandomToken(table=table).replacements(PROMPT, words(PROMPT), poor)


def nearest_by_hand(table, token, n):
    """All ordinary tokens of the same kind, most similar first, by the plain formula."""
    own = table.embeddings[table.tokens.index(token)]
    ranked = sorted(
        (
            -float(own @ vector / np.linalg.norm(own) / np.linalg.norm(vector)),
            number,
            text.strip(),
        )
        for number, (text, vector) in enumerate(zip(table.tokens, table.embeddings, strict=True))
        if text.strip() not in ("", "<end>", "\x07", "\ufffd", token.strip())
        and text.startswith(" ") == token.startswith(" ")
    )
    return ranked[n - 1 if n > 0 else n][2]


@pytest.mark.parametrize("n", [1, 2, 5, -1, -2])
def test_nth_nearest(rich, table, words, n):
    prompt = Prompt.from_text("box red apples")
    units = words(prompt)[1:]
    assert NthNearest(n=n).replacements(prompt, units, rich) == [
        nearest_by_hand(table, " red", n),
        nearest_by_hand(table, " apple", n) + nearest_by_hand(table, "s", n),
    ]


def test_nth_nearest_falls_back_on_the_other_kind(table, poor):
    # There are 7 other starts of words; the 9th nearest is taken among all 13 other tokens.
    prompt = Prompt.from_text("a red")
    (made,) = NthNearest(n=13, table=table).replacements(prompt, [prompt.unit(0, 2, 5)], poor)
    (far,) = NthNearest(n=-13, table=table).replacements(prompt, [prompt.unit(0, 2, 5)], poor)
    assert {made, far} <= {text.strip() for text in table.tokens}
    with pytest.raises(ConfigError, match="13 candidates"):
        NthNearest(n=14, table=table).replacements(prompt, [prompt.unit(0, 2, 5)], poor)


def test_nth_nearest_without_a_tokenizer_takes_the_longest_tokens(table, poor, words):
    prompt = Prompt.from_text("two apples")
    made = NthNearest(table=table).replacements(prompt, words(prompt), poor)
    assert made == [
        nearest_by_hand(table, " two", 1),
        nearest_by_hand(table, " apple", 1) + nearest_by_hand(table, "s", 1),
    ]


def test_a_token_that_is_not_in_the_table_lies_at_its_mean(poor):
    embeddings = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.1]])
    table = TokenTable(tokens=(" east", " north", " both"), embeddings=embeddings)
    prompt = Prompt.from_text("日本")
    unit = prompt.unit(0, 0, 2)
    assert NthNearest(table=table).replacements(prompt, [unit], poor) == ["both"]


def test_equals_are_taken_in_the_vocabularys_order(poor):
    table = TokenTable(tokens=(" a", " b", " c", " d"), embeddings=np.ones((4, 3)))
    prompt = Prompt.from_text("b")
    unit = prompt.unit(0, 0, 1)
    assert [
        NthNearest(n=n, table=table).replacements(prompt, [unit], poor)[0] for n in (1, 2, 3, -1)
    ] == ["a", "c", "d", "a"]


def test_tokens_that_differ_in_blanks_alone_are_no_neighbours(poor):
    embeddings = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    table = TokenTable(tokens=(" a", "  a", "a", " far"), embeddings=embeddings)
    prompt = Prompt.from_text("x a")
    assert NthNearest(table=table).replacements(prompt, [prompt.unit(0, 2, 3)], poor) == ["far"]


@pytest.mark.parametrize("n", [0, 1.5, True, "1"])
def test_n_is_a_number_other_than_0(n):
    with pytest.raises(ConfigError, match="nearest"):
        NthNearest(n=n)


def test_nth_nearest_needs_embeddings(poor, words):
    with pytest.raises(CapabilityError):
        NthNearest().replacements(PROMPT, words(PROMPT), poor)


def test_a_table_of_other_lengths_is_refused(poor, words):
    table = TokenTable(tokens=(" a", " b"), embeddings=np.ones((3, 2)))
    with pytest.raises(ConfigError, match="2 tokens"):
        NthNearest(table=table).replacements(PROMPT, words(PROMPT), poor)
