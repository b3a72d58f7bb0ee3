# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from pizza.prompt import Prompt
from pizza.segmenters.tokens import TokenSegmenter
from pizza.segmenters.words import WordSegmenter


def texts(units):
    return [unit.text for unit in units]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two  red,\tapples!", ["Two", "red,", "apples!"]),
        ("iPhone手机", ["iPhone", "手", "机"]),
        ("《书》很好！你", ["《书》", "很", "好！", "你"]),
        ("カーは「高い」です。", ["カー", "は", "「高", "い」", "です。"]),
        ("ภาษาไทย ดี", ["ภาษาไทย", "ดี"]),
        ("한국어는 쉽다.", ["한국어는", "쉽다."]),
        ("שלום עולם", ["שלום", "עולם"]),
        ("x\x00y z", ["x\x00y", "z"]),
        ("👨‍👩‍👧 🇩🇪🇫🇷 e\u0301", ["👨‍👩‍👧", "🇩🇪🇫🇷", "e\u0301"]),
        ("a \u0301b", ["a", " \u0301b"]),
        ("\U00020000\U00020001", ["\U00020000", "\U00020001"]),
        ("one", ["one"]),
    ],
)
def test_words(resources, text, expected):
    assert texts(WordSegmenter().segment(Prompt.from_text(text), resources)) == expected


def test_template_marks_are_cut_away(resources):
    prompt = Prompt.from_text("Q: How many pears? A:")
    assert texts(WordSegmenter().segment(prompt, resources)) == ["How", "many", "pears?"]


def test_a_fixed_part_cuts_a_word(resources):
    prompt = Prompt.from_text("unbelievable").fix((2, 8))
    assert texts(WordSegmenter().segment(prompt, resources)) == ["un", "able"]


def test_tokens_leave_their_white_space_out(resources):
    units = TokenSegmenter().segment(Prompt.from_text("the the\n\nan"), resources)
    assert [(unit.text, unit.start) for unit in units] == [("the", 0), ("the", 4), ("an", 9)]


def test_tokens_are_those_of_the_whole_text(resources):
    # " the" is one token of the text; cut after its fixed part, only the rest is a unit.
    units = TokenSegmenter().segment(Prompt.from_text("x the").fix((0, 3)), resources)
    assert texts(units) == ["he"]


def test_a_character_of_several_tokens_is_one_unit(resources):
    assert texts(TokenSegmenter().segment(Prompt.from_text("日🍐"), resources)) == ["日", "🍐"]
