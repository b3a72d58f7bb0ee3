# SPDX-License-Identifier: Apache-2.0
"""The page about measures says of each what it must, and its document is one."""

import json
import re
from pathlib import Path

import pytest

from pizza.evaluation import Evaluation
from pizza.evaluation.catalog import MEASURES, USUAL

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", MEASURES)
def test_each_measure_is_explained_in_three_sentences(name):
    section = re.search(rf"^### {name}\n\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE)[1]
    explained, rest = section.split("\n\n", 1)
    assert len(re.findall(r"\.(?=\s|$)", explained)) == 3
    for what in ("*Cannot say*", "*Formula*", "*Source*"):
        assert what in rest


@pytest.mark.parametrize("name", MEASURES)
def test_the_table_says_which_way_is_better_and_what_is_usual(name):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == ("higher" if MEASURES[name].higher_is_better else "lower")
    assert (cells[-1] == "no") is (name not in USUAL)


def test_the_documented_evaluation_is_one():
    document = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])
    assert Evaluation.from_dict(document).to_dict() == document
