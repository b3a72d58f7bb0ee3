# SPDX-License-Identifier: Apache-2.0
"""What holds for the units of every segmenter and every text."""

from __future__ import annotations

import time

import pytest
import regex
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pizza.errors import ConfigError
from pizza.prompt import Message, Prompt
from pizza.segmenters.groups import groups
from pizza.segmenters.messages import MessageSegmenter
from pizza.segmenters.paragraphs import ParagraphSegmenter
from pizza.segmenters.regexes import RegexSegmenter
from pizza.segmenters.sentences import SentenceSegmenter
from pizza.segmenters.tokens import TokenSegmenter
from pizza.segmenters.words import WordSegmenter

WHOLE_GRAPHEMES = {
    "word": WordSegmenter(),
    "sentence": SentenceSegmenter(),
    "paragraph": ParagraphSegmenter(),
    "message": MessageSegmenter(),
}
ALL = {
    **WHOLE_GRAPHEMES,
    "token": TokenSegmenter(),
    "regex with rest": RegexSegmenter(r"[a-z]\w*", rest="units"),
}

# Fragments that cutting rules trip over, glued in any order.
FRAGMENTS = (
    "the cat ", "a", " ", "\n", "\n\n", "\r\n", "\t", "Dr. ", "3.5", "...",
    "e.g. ", "!", "? ", ". ", "U.S. ", "The ", '"', "”", "(", "「", "」", "我爱",
    "你。", "ひらがな", "カー", "ไทย", "한국 ", "🇩🇪", "🇩", "👨‍👩‍👧", "👍🏽", "🏳️‍🌈",
    "e\u0301", " \u0301", "\u0301", "\u200d", "\ufe0f", "\x00", "שלום ",
    "مرحبا؟ ", "क्षि। ", "\u2028", "\u3000", "\U00010348", "\u200b", "1. ",
    "- ",
)  # fmt: skip
texts = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    messages = draw(st.lists(texts, min_size=1, max_size=3))
    assume(any(text.strip() for text in messages))
    prompt = Prompt(messages=tuple(Message(text=text) for text in messages), kind="chat")
    for index, text in enumerate(messages):
        for _ in range(draw(st.integers(0, 2)) if text else 0):
            start = draw(st.integers(0, len(text) - 1))
            prompt = prompt.fix((index, start, draw(st.integers(start + 1, len(text)))))
    return prompt


def free_characters(prompt: Prompt) -> set[tuple[int, int]]:
    """Positions of what may be perturbed and is more than white space."""
    return {
        (index, at)
        for index, message in enumerate(prompt.messages)
        for start, end in prompt.free_spans(index)
        for at in range(start, end)
        if not message.text[at].isspace()
    }


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=prompts())
def test_units_cover_what_is_free_exactly_once_and_in_order(name, resources, prompt):
    segmenter = ALL[name]
    if not free_characters(prompt):
        with pytest.raises(ConfigError, match="nothing to perturb"):
            segmenter.segment(prompt, resources)
        return
    try:
        units = segmenter.segment(prompt, resources)
    except ConfigError:
        assert name == "regex with rest"
        return
    places = [(unit.message, unit.start, unit.end) for unit in units]
    covered = [(m, at) for m, start, end in places for at in range(start, end)]
    solid = [
        (message, at) for message, at in covered if not prompt.messages[message].text[at].isspace()
    ]
    assert places == sorted(places)
    assert len(set(covered)) == len(covered)
    assert set(solid) == free_characters(prompt)
    fixed = {(f.message, at) for f in prompt.fixed for at in range(f.start, f.end)}
    assert not fixed & set(covered)
    for unit in units:
        assert unit.text == prompt.messages[unit.message].text[unit.start : unit.end]
        assert unit.text.strip()
        assert not unit.text[-1].isspace()


@pytest.mark.parametrize("name", WHOLE_GRAPHEMES)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts)
def test_no_grapheme_is_cut(name, resources, text):
    assume(text.strip())
    starts = {match.start() for match in regex.finditer(r"\X", text)}
    for unit in WHOLE_GRAPHEMES[name].segment(Prompt(messages=(Message(text=text),)), resources):
        assert unit.start in starts


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=prompts())
def test_groups_nest_and_never_fall(resources, prompt):
    assume(free_characters(prompt))
    units = WordSegmenter().segment(prompt, resources)
    rows = groups(prompt, units)
    assert rows.shape == (len(units), 3)
    assert (rows[1:] >= rows[:-1]).all()
    assert rows[:, 0].tolist() == [unit.message for unit in units]
    # Two words of one sentence are in one paragraph, of one paragraph in one message.
    assert len({tuple(r) for r in rows.tolist()}) == len(set(rows[:, 2].tolist()))
    assert len({tuple(r) for r in rows[:, :2].tolist()}) == len(set(rows[:, 1].tolist()))


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox. " * 5000,
        "我爱你" * 33_000,
        "!" * 100_000 + "x",
        ". " * 50_000 + "x",
        "x." + " " * 100_000 + "y",
        ("x" + "\n" * 3) * 25_000,
        '("「' * 33_000 + "x",
        "e\u0301\u0301" * 33_000,
        "a.b." * 25_000,
    ],
    ids=lambda text: repr(text[:6]),
)
@pytest.mark.parametrize("name", ALL)
def test_a_long_prompt_takes_linear_time(name, resources, text):
    def seconds(prompt: Prompt) -> float:
        start = time.process_time()
        ALL[name].segment(prompt, resources)
        return time.process_time() - start

    if name == "regex with rest" and not any("a" <= c <= "z" for c in text):
        pytest.skip("nothing matches")
    if name == "token" and len(text.split()) < 100:
        pytest.skip("one piece of 100 kB is slow in the tokenizer itself")
    # Quadratic work would need minutes; the bound is loose for slow machines.
    assert seconds(Prompt.from_text(text)) < 10
