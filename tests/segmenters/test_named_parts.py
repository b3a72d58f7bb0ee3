# SPDX-License-Identifier: Apache-2.0
"""Messages, slots, spans and matches: parts that somebody named."""

from __future__ import annotations

import pytest

from pizza.errors import ConfigError
from pizza.prompt import Prompt
from pizza.segmenters import SPECS
from pizza.segmenters.messages import MessageSegmenter
from pizza.segmenters.regexes import RegexSegmenter
from pizza.segmenters.slots import SlotSegmenter
from pizza.segmenters.spans import SpanSegmenter

CHAT = Prompt.chat(
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " Hello. "},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "Q: Why?"},
    ]
)


def named(units):
    return [(unit.message, unit.name, unit.text) for unit in units]


def test_messages_are_named_by_role(resources):
    assert named(MessageSegmenter().segment(CHAT, resources)) == [
        (0, "system", "Be brief."),
        (1, "user 1", "Hello."),
        (2, "assistant", "Hi!"),
        (3, "user 2", "Why?"),
    ]


def test_a_message_that_is_cut_by_a_fixed_part_is_numbered(resources):
    prompt = Prompt.from_text("one two three").fix((4, 7))
    assert named(MessageSegmenter().segment(prompt, resources)) == [
        (0, "user (part 1)", "one"),
        (0, "user (part 2)", "three"),
    ]


def test_slots_are_taken_as_given(resources):
    prompt = Prompt.template("{a}, {b} and {a}{c}", a="x ", b="y", c="")
    assert named(SlotSegmenter().segment(prompt, resources)) == [
        (0, "a", "x "),
        (0, "b", "y"),
        (0, "a", "x "),
    ]


def test_slots_need_a_template(resources):
    with pytest.raises(ConfigError, match=r"Prompt\.template"):
        SlotSegmenter().segment(CHAT, resources)


def test_spans_in_any_order_with_labels(resources):
    segmenter = SpanSegmenter(spans=[(3, 0, 2, "mark"), [1, 1, 6], (0, 2, "verb")])
    prompt = Prompt.chat(
        [{"role": m.role, "content": m.text} for m in CHAT.messages], keep_marks_fixed=False
    )
    assert named(segmenter.segment(prompt, resources)) == [
        (0, "verb", "Be"),
        (1, "Hello", "Hello"),
        (3, "mark", "Q:"),
    ]


def test_spans_with_the_rest_as_units(resources):
    prompt = Prompt.from_text("Q: one two three four").fix((8, 10))
    units = SpanSegmenter(spans=[(11, 16)], rest="units").segment(prompt, resources)
    assert [unit.text for unit in units] == ["one t", "three", "four"]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(0, 4), (3, 6)], "overlap"),
        ([(0, 40)], "outside"),
        ([(7, 0, 2)], "no message 7"),
        ([(2, 2)], "empty"),
        ([(4, 5)], "white space"),
        ([(5, 14)], "is fixed"),
        ([(1,)], r"\(start, end\)"),
        ([("a", "b")], r"\(start, end\)"),
        ([], "no spans"),
    ],
)
def test_bad_spans(resources, spans, message):
    prompt = Prompt.from_text("some words here.").fix((11, 15))
    with pytest.raises(ConfigError, match=message):
        SpanSegmenter(spans=spans).segment(prompt, resources)


def test_matches_without_and_with_the_rest(resources):
    prompt = Prompt.from_text("Ana has 3 apples, Bob 5.")
    assert [u.text for u in RegexSegmenter(r"\d+").segment(prompt, resources)] == ["3", "5"]
    units = RegexSegmenter(r"\d+", rest="units").segment(prompt, resources)
    assert [u.text for u in units] == ["Ana has", "3", "apples, Bob", "5", "."]


def test_matches_are_cut_by_fixed_parts(resources):
    prompt = Prompt.from_text("Q: one; two; three").fix("two")
    assert [u.text for u in RegexSegmenter("[^;]+").segment(prompt, resources)] == ["one", "three"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RegexSegmenter("("), "not a regular expression"),
        (lambda: RegexSegmenter("x", rest="some"), "'fixed' or 'units'"),
        (lambda: SpanSegmenter([(0, 1)], rest=""), "'fixed' or 'units'"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_pattern_that_matches_nothing(resources):
    with pytest.raises(ConfigError, match="nothing to perturb"):
        RegexSegmenter("z*").segment(Prompt.from_text("abc"), resources)


def test_everything_fixed(resources):
    prompt = Prompt.from_text("abc").fix((0, 3))
    with pytest.raises(ConfigError, match="besides its fixed parts"):
        MessageSegmenter().segment(prompt, resources)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_specs_name_something_that_exists(spec):
    import importlib

    module, _, attribute = spec.target.partition(":")
    assert isinstance(getattr(importlib.import_module(module), attribute), type)
    assert spec.summary
