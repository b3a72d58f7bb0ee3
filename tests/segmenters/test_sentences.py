# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from pizza.prompt import Prompt
from pizza.segmenters.groups import groups
from pizza.segmenters.paragraphs import ParagraphSegmenter
from pizza.segmenters.sentences import SentenceSegmenter
from pizza.segmenters.words import WordSegmenter


@pytest.mark.parametrize(
    "sentences",
    [
        ["Ana has 3.5 apples.", "Bob has 5."],
        ["Dr. Smith met Mrs. Jones at St. Mary's.", "They left."],
        ["Use fruit, e.g. pears, i.e. green ones.", "Then stop!"],
        ["The U.S. Army came.", "He lives in the U.S.", "The end."],
        ["J. R. Tolkien wrote it.", "So do I.", "It is long."],
        ['"Really?" she asked.', '"Yes."', "He left."],
        ["Wait... what?", "Nothing...", "Fine."],
        ["What?!", "No way!!"],
        ["It costs $5.00.", "See fig. 3 and no. 7.", "The answer is no.", "Is it?"],
        ["It is 5 p.m. and dark.", "It was 5 p.m.", "Bob slept."],
        ["Apple Inc. Cupertino makes it.", "They sell apples, pears, etc.", "Bob buys them."],
        ["(This one is inside.)", "This is not."],
        ["我爱你。", "他说：“好！”", "走吧？"],
        ["これは本です。", "高いですか？", "はい。"],
        ["यह किताब है।", "वह पढ़ता है।"],
        ["هل أنت بخير؟", "نعم."],
        ["visit example.com today.", "Python 3.11 is out."],
        ["One sentence without an end"],
    ],
)
def test_sentences(resources, sentences):
    joiner = "" if "。" in sentences[0] else " "
    prompt = Prompt.from_text(joiner.join(sentences))
    units = SentenceSegmenter().segment(prompt, resources)
    assert [unit.text for unit in units] == sentences


def test_text_without_capitals_ends_at_full_stops(resources):
    prompt = Prompt.from_text("the box is red. what colour is it? say e.g. red.")
    assert [u.text for u in SentenceSegmenter().segment(prompt, resources)] == [
        "the box is red.",
        "what colour is it?",
        "say e.g. red.",
    ]


def test_line_breaks(resources):
    wrapped = "This line of prose is long enough to have been wrapped by an editor\nat its margin."
    text = f"Shopping list:\n- apples\n- pears\n1. First\n2. Second\n\n{wrapped}"
    assert [u.text for u in SentenceSegmenter().segment(Prompt.from_text(text), resources)] == [
        "Shopping list:",
        "- apples",
        "- pears",
        "1. First",
        "2. Second",
        wrapped,
    ]


def test_paragraphs(resources):
    text = "\n\nOne\nline two\r\n \t\r\nTwo\n\n\n  Three\n"
    assert [u.text for u in ParagraphSegmenter().segment(Prompt.from_text(text), resources)] == [
        "One\nline two",
        "Two",
        "Three",
    ]


def test_groups_number_through_the_prompt(resources):
    prompt = Prompt.chat(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One two. Three.\n\nFour."},
        ]
    )
    units = WordSegmenter().segment(prompt, resources)
    assert groups(prompt, units).tolist() == [
        [0, 0, 0],
        [0, 0, 0],
        [1, 1, 1],
        [1, 1, 1],
        [1, 1, 2],
        [1, 2, 3],
    ]


def test_groups_of_no_units():
    assert groups(Prompt.from_text("x"), []).shape == (0, 3)
