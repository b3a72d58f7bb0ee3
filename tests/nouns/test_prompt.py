# SPDX-License-Identifier: Apache-2.0
"""Prompts, template marks, edits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pizza.errors import ConfigError
from pizza.prompt import Edit, Message, Prompt, template_marks

texts = st.text(min_size=1, max_size=60).filter(lambda t: t.strip() and "\ud800" not in t)


def fixed_texts(prompt):
    return [prompt.messages[f.message].text[f.start : f.end] for f in prompt.fixed]


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("Q: Who is it? A:", ["Q:", "A:"]),
        ("Ann is tall.\nQuestion: Who is tall?\nAnswer:", ["Question:", "Answer:"]),
        ("<|user|>Hi<|end|><|assistant|>", ["<|user|>", "<|end|>", "<|assistant|>"]),
        ("[INST] Hello [/INST]", ["[INST]", "[/INST]"]),
        ("Give the vitamin A: it helps.", []),
        ("The ratio A:B is 2.", []),
        ("Say who A:", ["A:"]),
        ("Write your answer: yes", []),
        ("plain words", []),
    ],
)
def test_template_marks_are_known(text, marks):
    assert [text[m.start : m.end] for m in template_marks(text)] == marks


def test_marks_are_fixed_by_default_and_say_why():
    prompt = Prompt.of("Q: Who? A:")
    assert {f.reason for f in prompt.fixed} == {"template mark"}
    assert Prompt.from_text("Q: Who? A:", keep_marks_fixed=False).fixed == ()


def test_a_prompt_of_marks_alone_keeps_something_to_perturb():
    assert Prompt.of("<|user|> <|end|>").fixed == ()


@pytest.mark.parametrize("empty", ["", "  \n\t", []])
def test_an_empty_prompt_is_refused(empty):
    with pytest.raises(ConfigError, match="empty"):
        Prompt.of(empty)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "a prompt is a str"),
        (b"bytes", "a prompt is a str"),
        ([{"role": "king", "content": "x"}], "role 'king'"),
        ([{"content": "x"}], "a chat message"),
        ([{"role": "user", "content": [{"type": "image"}]}], "content of a message is a str"),
        ("a\ud800b", "surrogate"),
    ],
)
def test_wrong_prompts_are_refused_by_name(value, message):
    with pytest.raises(ConfigError, match=message):
        Prompt.of(value)


def test_template_slots_are_where_the_values_stand():
    prompt = Prompt.template("{name} lives in {place}, {name}!", name="Dave", place="Palm Coast")
    shown = [(s.name, prompt.text[s.start : s.end]) for s in prompt.slots]
    assert shown == [("name", "Dave"), ("place", "Palm Coast"), ("name", "Dave")]
    assert fixed_texts(prompt) == [" lives in ", ", ", "!"]
    assert prompt.free_spans(0) == ((0, 4), (14, 24), (26, 30))


@pytest.mark.parametrize(
    ("template", "values", "message"),
    [
        ("{a} b", {}, "'a' has no value"),
        ("{a}", {"a": "x", "b": "y"}, "no slots named b"),
        ("nothing", {}, "no slots"),
        ("{a:>10}", {"a": "x"}, "not a plain name"),
    ],
)
def test_wrong_templates_are_refused(template, values, message):
    with pytest.raises(ConfigError, match=message):
        Prompt.template(template, **values)


def test_fix_takes_spans_and_patterns_and_cuts_overlaps():
    prompt = Prompt.of("one two three two").fix("two", (0, 5))
    assert fixed_texts(prompt) == ["one t", "wo", "two"]
    with pytest.raises(ConfigError, match="outside of message 0"):
        prompt.fix((3, 99))


def test_fixed_roles_fix_whole_messages():
    prompt = Prompt.chat(
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}],
        fixed_roles=["system"],
    )
    assert prompt.free_spans(0) == ()
    assert prompt.free_spans(1) == ((0, 5),)


def test_edits_replace_where_they_stand():
    prompt = Prompt.of("alpha beta gamma")
    edits = [
        Edit(message=0, start=11, end=16, text="C"),
        Edit(message=0, start=0, end=5, text="A"),
    ]
    assert prompt.edited(edits).text == "A beta C"


def test_overlapping_edits_are_refused():
    edits = [
        Edit(message=0, start=0, end=5, text=""),
        Edit(message=0, start=4, end=6, text=""),
    ]
    with pytest.raises(ConfigError, match="overlapping"):
        Prompt.of("alpha beta").edited(edits)


def test_emptied_messages_are_dropped_but_one_stays():
    prompt = Prompt.chat([Message(role="system", text="a"), Message(role="user", text="b")])
    first = prompt.edited([Edit(message=0, start=0, end=1, text="")])
    assert [m.text for m in first.messages] == ["b"]
    both = prompt.edited([Edit(message=i, start=0, end=1, text="") for i in (0, 1)])
    assert [(m.role, m.text) for m in both.messages] == [("user", "")]


@given(texts)
def test_a_prompt_survives_saving(text):
    prompt = Prompt.of(text)
    assert Prompt.from_dict(prompt.to_dict()) == prompt


@given(texts)
def test_free_and_fixed_spans_tile_the_text(text):
    prompt = Prompt.of(text)
    spans = sorted([*prompt.free_spans(0), *((f.start, f.end) for f in prompt.fixed)])
    assert "".join(text[a:b] for a, b in spans) == text
