# SPDX-License-Identifier: Apache-2.0
"""Documents, questions and the words that answers depend on."""

from __future__ import annotations

import random

import pytest
from pizza_embedded import vocabulary, world


def spans_text(example: world.Example, spans: tuple[tuple[int, int], ...]) -> list[str]:
    return [example.text[start:end] for start, end in spans]


@pytest.mark.parametrize("names", ["mixed", "known", "unseen"])
@pytest.mark.parametrize("style", world.STYLES)
def test_spans_are_whole_words_of_the_text(names: str, style: str) -> None:
    for example in world.heldout(200, seed=3, styles=[style], names=names):
        assert example.value_spans
        assert example.key_spans
        for start, end in (*example.value_spans, *example.key_spans, *example.scaffold_spans):
            assert example.text[start:end].strip() == example.text[start:end] != ""
            assert start == 0 or not example.text[start - 1].isalnum()
            assert end == len(example.text) or not example.text[end].isalnum()
        assert not set(example.value_spans) & set(example.key_spans)


def test_answer_is_read_off_the_value_words() -> None:
    for example in world.heldout(300, seed=4):
        values = spans_text(example, example.value_spans)
        if example.task in ("inventory", "capital"):
            assert example.answer.lower() in [value.lower() for value in values]
        elif example.question_style == "hour":
            hour, duration = map(int, values)
            assert (hour + duration - int(example.answer)) % 12 == 0
        elif example.question_style == "minutes":
            assert int(values[0].partition(":")[2]) + int(example.answer) == 60
        else:
            *negation, polarity = values
            positive = polarity in vocabulary.POSITIVE
            assert example.answer == ("positive" if positive != bool(negation) else "negative")


def test_same_seed_same_examples_and_other_seed_others() -> None:
    assert world.heldout(40, seed=1) == world.heldout(40, seed=1)
    assert world.heldout(40, seed=1) != world.heldout(40, seed=2)


def test_scaffold_is_only_in_plain_style() -> None:
    for example in world.heldout(40, styles=["plain"]):
        assert spans_text(example, example.scaffold_spans) == ["Q:", "A:"]
        assert example.text.endswith("\nA:")
    for example in world.heldout(40, styles=["chat"]):
        assert example.scaffold_spans == ()
        assert example.messages() == [("user", example.text)]


def test_redundant_evidence_states_every_value_twice() -> None:
    for example in world.heldout(80, redundant=True):
        values = spans_text(example, example.value_spans)
        assert len(values) % 2 == 0
        assert sorted(v.lower() for v in values[::2]) or values


def test_unseen_words_are_not_among_the_known() -> None:
    for unseen, known in (
        (vocabulary.UNSEEN_NAMES, vocabulary.NAMES),
        (vocabulary.UNSEEN_ITEMS, vocabulary.ITEMS),
        (vocabulary.UNSEEN_COUNTRIES, vocabulary.COUNTRIES),
        (vocabulary.UNSEEN_CITIES, vocabulary.CITIES),
    ):
        assert not set(unseen) & set(known)


def test_a_lost_key_does_not_matter_while_the_rest_selects_the_fact() -> None:
    facts = [
        {"name": "Ana", "number": "3", "color": "red", "item": "apples"},
        {"name": "Bob", "number": "5", "color": "green", "item": "pears"},
    ]
    question = world.fact_question(
        facts, "how-many", "type=How type=many item={item} does name={name} have?",
        ["name", "item"], "number", facts[1],
    )  # fmt: skip
    assert question.solve(frozenset()) == "5"
    assert question.solve(frozenset({"q.name"})) == "5"
    assert question.solve(frozenset({"1.item"})) == "5"
    assert question.solve(frozenset({"1.number"})) == world.UNKNOWN
    assert question.solve(frozenset({"q.name", "q.item"})) == world.UNKNOWN
    assert question.solve(frozenset({"q.type"})) == world.UNKNOWN


def test_a_lost_key_matters_when_two_facts_share_the_other() -> None:
    facts = [
        {"name": "Ana", "number": "3", "color": "red", "item": "pears"},
        {"name": "Bob", "number": "5", "color": "green", "item": "pears"},
    ]
    question = world.fact_question(
        facts, "how-many", "type=How type=many item={item} does name={name} have?",
        ["name", "item"], "number", facts[1],
    )  # fmt: skip
    assert question.solve(frozenset({"q.item"})) == "5"
    assert question.solve(frozenset({"q.name"})) == world.UNKNOWN


def test_unknown_task_and_style_name_what_there_is() -> None:
    with pytest.raises(ValueError, match="inventory, capital, clock, sentiment"):
        world.problem(random.Random(0), "poetry")
    drawn = world.problem(random.Random(0), "clock")
    with pytest.raises(ValueError, match="chat, plain"):
        world.example(drawn, drawn.questions[0], "verse")
