# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import numpy as np
import pytest

from pizza.perturbations.delete import Delete
from pizza.perturbations.fixed import Fixed
from pizza.prompt import Prompt


def without(prompt, units, resources, absent, strategy=Delete):
    present = np.array([index not in absent for index in range(len(units))])
    made = strategy()
    made.prepare(prompt, units, resources)
    return [message.text for message in made.render(prompt, units, present).messages]


@pytest.mark.parametrize(
    ("text", "absent", "left"),
    [
        ("a b c", {1}, "a c"),
        ("a b c", {0}, "b c"),
        ("a b c", {2}, "a b"),
        ("a b c", {0, 1}, "c"),
        ("a b c", {0, 2}, "b"),
        ("a b c", {1, 2}, "a"),
        ("a b c", {0, 1, 2}, ""),
        ("  a b ", {0}, "b "),
        ("  a b ", {1}, "  a "),
        ("a  b\tc", {1}, "a\tc"),
        ("a\nb c", {1}, "a\nc"),
        ("a b\nc", {1}, "a\nc"),
        ("a\n\nb\nc", {1}, "a\n\nc"),
        ("a\nb\n", {1}, "a\n"),
        ("a b\n\nc d e", {1, 2, 3}, "a\n\ne"),
        ("Q: a b A:", {0}, "Q: b A:"),
        ("Q: a b A:", {0, 1}, "Q: A:"),
        ("Q: a b A:", {1}, "Q: a A:"),
    ],
)
def test_delete(poor, words, text, absent, left):
    prompt = Prompt.from_text(text)
    assert without(prompt, words(prompt), poor, absent) == [left]


def test_white_space_in_fixed_parts_stays(poor):
    prompt = Prompt.template("{a} in {b}, {c}.", a="Ana", b="Rome", c="Italy")
    units = [prompt.unit(0, s.start, s.end) for s in prompt.slots]
    assert without(prompt, units, poor, {0, 2}) == [" in Rome, ."]


def test_text_outside_of_units_stays(poor):
    prompt = Prompt.from_text("one two three four")
    units = [prompt.unit(0, 4, 7), prompt.unit(0, 14, 18)]
    assert without(prompt, units, poor, {0, 1}) == ["one three"]


def test_units_that_touch(poor):
    prompt = Prompt.from_text("x unbelievable y")
    units = [prompt.unit(0, 2, 4), prompt.unit(0, 4, 10), prompt.unit(0, 10, 14)]
    assert without(prompt, units, poor, {1}) == ["x unable y"]
    assert without(prompt, units, poor, {0, 1, 2}) == ["x y"]


def test_messages_of_which_nothing_is_left_are_dropped_but_not_the_last(poor, words):
    prompt = Prompt.chat([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])
    units = words(prompt)
    assert without(prompt, units, poor, {0}) == ["b"]
    assert without(prompt, units, poor, {0, 1}) == [""]


def test_no_doubled_blanks_and_no_joined_words_for_any_coalition(poor, words):
    prompt = Prompt.from_text("one two three four five")
    units = words(prompt)
    for size in range(6):
        for absent in itertools.combinations(range(5), size):
            kept = [unit.text for index, unit in enumerate(units) if index not in absent]
            assert without(prompt, units, poor, set(absent)) == [" ".join(kept)]


def test_fixed_keeps_white_space(poor, words):
    prompt = Prompt.from_text("a  b\nc")
    units = words(prompt)
    assert without(prompt, units, poor, {1}, Fixed) == ["a  ...\nc"]
    assert without(prompt, units, poor, {0, 1}, lambda: Fixed(text="")) == ["  \nc"]
