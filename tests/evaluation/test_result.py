# SPDX-License-Identifier: Apache-2.0
"""An evaluation survives being written and read, and damage is named."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pizza.completion import Usage
from pizza.errors import ConfigError, ResultFormatError
from pizza.evaluation import Evaluation, Faithfulness

numbers = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
figures = st.builds(
    Faithfulness,
    measure=st.text(min_size=1, max_size=9),
    value=st.floats(),
    scale=st.text(max_size=9),
    higher_is_better=st.booleans(),
    standard_error=numbers,
    random=numbers,
    details=st.dictionaries(
        st.text(max_size=5), st.one_of(st.integers(), st.lists(st.floats(allow_nan=False)))
    ),
    warnings=st.tuples(st.text(max_size=9)),
)


def make(*results, **fields):
    return Evaluation(results=results, metric="logprob-diff", n_units=3, **fields)


def lds(**fields):
    return Faithfulness(
        **{
            "measure": "lds",
            "value": 0.75,
            "scale": "rank correlation",
            "higher_is_better": True,
            **fields,
        }
    )


@given(st.lists(figures, max_size=4), st.integers(0, 9), numbers)
def test_what_is_written_is_read(results, count, cost):
    cost = None if cost is None or not math.isfinite(cost) else cost
    before = make(
        *results,
        calls=count,
        cache_hits=count + 1,
        usage=Usage(prompt_tokens=3, completion_tokens=count),
        cost=cost,
        output_token=count,
        provenance={"seed": count},
        warnings=("w",),
    )
    text = json.dumps(before.to_dict(), allow_nan=False)
    after = Evaluation.from_dict(json.loads(text))
    assert after.to_dict() == before.to_dict()
    assert (after.calls, after.usage, after.output_token) == (count, before.usage, count)


def test_files(tmp_path):
    path = tmp_path / "evaluation.json"
    made = make(lds(value=math.nan))
    made.save(path)
    assert math.isnan(Evaluation.load(path)["lds"].value)
    assert [p.name for p in tmp_path.iterdir()] == ["evaluation.json"]


def test_measures_are_found_by_name():
    made = make(lds(), lds(measure="lds:p=0.9", value=0.5))
    assert made["lds:p=0.9"].value == 0.5
    with pytest.raises(ConfigError, match=r"it has lds, lds:p=0\.9"):
        made["tau-loo"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "pizza.attribution"}, "not a saved evaluation"),
        ({"schema_version": 9}, "schema version 9"),
        ({"results": [{}]}, "damaged"),
        ({"results": 3}, "damaged"),
        ({"usage": []}, "damaged"),
        ({"provenance": None}, "damaged"),
        ({"n_units": "many"}, "damaged"),
    ],
)
def test_what_is_no_evaluation_is_refused(change, said):
    with pytest.raises(ResultFormatError, match=said):
        Evaluation.from_dict({**make(lds()).to_dict(), **change})


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]"])
def test_files_that_hold_something_else_are_refused(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ResultFormatError):
        Evaluation.load(path)
