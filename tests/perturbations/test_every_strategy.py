# SPDX-License-Identifier: Apache-2.0
"""What holds for every strategy, every prompt and every coalition."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pizza.errors import PluginContractError
from pizza.perturbations import SPECS
from pizza.perturbations.baseline import Baseline
from pizza.perturbations.delete import Delete
from pizza.perturbations.fixed import Fixed
from pizza.perturbations.mask import MaskToken
from pizza.perturbations.nearest import NthNearest
from pizza.perturbations.random_token import RandomToken
from pizza.prompt import Message, Prompt

STRATEGIES = {
    "delete": Delete,
    "fixed": Fixed,
    "nothing": lambda: Fixed(text=""),
    "mask-token": MaskToken,
    "mask per unit": lambda: MaskToken(per="unit"),
    "random-token": RandomToken,
    "nth-nearest": NthNearest,
    "farthest": lambda: NthNearest(n=-1),
}
REPLACING = [name for name in STRATEGIES if name != "delete"]

FRAGMENTS = (
    " ", "\n", "\n\n", "two ", "red", "apples.", "e\u0301", "👨\u200d👩", "שלום ", "x\x00y", "日本",
    "\U00010348 ",
)  # fmt: skip
fragments = st.sampled_from(FRAGMENTS)
texts = st.lists(fragments, min_size=1, max_size=9).map("".join)


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    messages = draw(st.lists(texts, min_size=1, max_size=3))
    assume(any(text.strip() for text in messages))
    prompt = Prompt(messages=tuple(Message(text=text) for text in messages), kind="chat")
    if draw(st.booleans()):
        at = draw(st.integers(0, len(messages[0]) - 1))
        prompt = prompt.fix((0, at, at + 1))
    return prompt


many = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def coalition_of(data: st.DataObject, n: int) -> np.ndarray:
    return np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=bool)


@pytest.mark.parametrize("name", STRATEGIES)
@many
@given(prompt=prompts())
def test_all_present_is_the_prompt_itself(name, rich, words, prompt):
    units = words(prompt)
    strategy = STRATEGIES[name]()
    strategy.prepare(prompt, units, rich)
    rendered = strategy.render(prompt, units, np.ones(len(units), dtype=bool))
    assert rendered.messages == prompt.messages
    assert rendered.fixed == ()


@pytest.mark.parametrize("name", STRATEGIES)
@many
@given(prompt=prompts(), data=st.data())
def test_rendering_depends_on_the_coalition_alone(name, rich, words, prompt, data):
    units = words(prompt)
    present = coalition_of(data, len(units))
    before = present.copy()
    first, second = STRATEGIES[name](), STRATEGIES[name]()
    first.prepare(prompt, units, rich)
    second.prepare(prompt, units, rich)
    first.render(prompt, units, ~present)
    assert first.render(prompt, units, present) == second.render(prompt, units, present)
    assert (present == before).all()


@pytest.mark.parametrize("name", REPLACING)
@many
@given(prompt=prompts(), data=st.data())
def test_a_unit_is_replaced_where_it_stands_whatever_else_is_absent(
    name, rich, words, prompt, data
):
    units = words(prompt)
    assume(units)
    strategy = STRATEGIES[name]()
    strategy.prepare(prompt, units, rich)
    present = coalition_of(data, len(units))
    alone = strategy.replacements(prompt, units, rich)
    # An oracle of string slices: the prompt cut at the units, every absent piece exchanged.
    messages = []
    for index, message in enumerate(prompt.messages):
        text, at = "", 0
        for number, unit in enumerate(units):
            if unit.message == index:
                text += message.text[at : unit.start]
                text += unit.text if present[number] else alone[number]
                at = unit.end
        messages.append(text + message.text[at:])
    changed = [m for m, old in zip(messages, prompt.messages, strict=True) if m or not old.text]
    rendered = strategy.render(prompt, units, present)
    assert [message.text for message in rendered.messages] == (changed or [""])


@pytest.mark.parametrize("name", ["mask-token", "random-token", "nth-nearest", "farthest"])
@many
@given(prompt=prompts())
def test_an_absent_unit_always_reads_differently(name, rich, poor, words, prompt):
    units = words(prompt)
    for resources in [rich, poor] if name == "random-token" else [rich]:
        made = STRATEGIES[name]().replacements(prompt, units, resources)
        for unit, text in zip(units, made, strict=True):
            assert text != unit.text
            assert text
            assert text == text.strip()


@pytest.mark.parametrize("name", STRATEGIES)
def test_render_needs_prepare(name):
    prompt = Prompt.from_text("one two")
    with pytest.raises(PluginContractError, match="prepare"):
        STRATEGIES[name]().render(prompt, [prompt.unit(0, 0, 3)], np.array([False]))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_specs_name_something_that_exists(spec):
    module, _, attribute = spec.target.partition(":")
    made = getattr(importlib.import_module(module), attribute)()
    assert spec.summary
    assert isinstance(made, (Delete, Fixed, MaskToken, NthNearest, RandomToken, Baseline))
