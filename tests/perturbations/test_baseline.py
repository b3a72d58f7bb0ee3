# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import collections

import numpy as np
import pytest

from pizza.errors import ConfigError
from pizza.perturbations.baseline import Baseline
from pizza.prompt import Prompt

PROMPT = Prompt.template(
    "{name}, {age}, lives in {city}, {state}. {name}?",
    name="Dave",
    age="40",
    city="Palm Coast",
    state="FL",
)
UNITS = [PROMPT.unit(0, s.start, s.end, label=s.name) for s in PROMPT.slots]


def all_absent(resources, **options):
    strategy = Baseline(**options)
    strategy.prepare(PROMPT, UNITS, resources)
    return strategy.render(PROMPT, UNITS, np.zeros(len(UNITS), dtype=bool)).text


def test_texts_and_the_default(poor):
    assert all_absent(poor) == ", , lives in , . ?"
    assert all_absent(poor, values={"name": "Ann"}, default="_") == "Ann, _, lives in _, _. Ann?"


def test_each_absent_slot_is_replaced_where_it_stands(poor):
    strategy = Baseline({"name": "Ann", "city": "Rome"})
    strategy.prepare(PROMPT, UNITS, poor)
    present = np.array([False, True, False, True, True])
    assert strategy.render(PROMPT, UNITS, present).text == "Ann, 40, lives in Rome, FL. Dave?"


def test_lists_are_drawn_independently_and_tuples_jointly(poor):
    values = {
        "name": ["Ann", "Bob"],
        "age": ("1", "2", "3"),
        ("city", "state"): [("Rome", "IT"), ("Oslo", "NO")],
    }
    seen = collections.Counter(all_absent(poor, values=values, sample=k) for k in range(200))
    assert len(seen) == 2 * 3 * 2
    assert all(("Rome, IT" in text) != ("Oslo, NO" in text) for text in seen)
    assert min(seen.values()) > 200 / 12 / 4


def test_functions_get_a_generator(poor):
    def values(random):
        return {"name": str(random.integers(10**9)), ("city", "state"): ("Rome", "IT")}

    first = all_absent(poor, values=values)
    assert first == all_absent(poor, values=values)
    assert first != all_absent(poor, values=values, sample=1)
    made = all_absent(poor, values={"age": lambda random: str(random.integers(1, 3))})
    assert made in {", 1, lives in , . ?", ", 2, lives in , . ?"}


def test_naming_a_further_slot_leaves_the_other_draws_alone(poor):
    names = [f"name{k}" for k in range(50)]
    alone = all_absent(poor, values={"name": names})
    more = all_absent(poor, values={"age": ["1", "2"], "name": names})
    assert alone.split(",")[0] == more.split(",")[0]


def test_seeds(poor):
    names = [f"name{k}" for k in range(50)]
    assert all_absent(poor, values={"name": names}) == all_absent(
        poor, values={"name": names}, seed=1
    )
    assert len({all_absent(poor, values={"name": names}, seed=seed) for seed in range(20)}) > 10


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"street": "x"}, "slots are age, city, name, state"),
        ({"name": "x", ("name", "age"): ("y", "1")}, "named once"),
        ({"name": []}, "is empty"),
        ({"name": 5}, "a text, a list"),
        ({"name": [5]}, "is a text"),
        ({("city", "state"): [("Rome",)]}, "as many texts"),
        (lambda random: ["x"], "mapping"),
    ],
)
def test_bad_values(poor, values, message):
    with pytest.raises(ConfigError, match=message):
        all_absent(poor, values=values)


def test_units_are_slots(poor):
    prompt = Prompt.from_text("one two")
    with pytest.raises(ConfigError, match="units='slot'"):
        Baseline().prepare(prompt, [prompt.unit(0, 0, 3)], poor)
