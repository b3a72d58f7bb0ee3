# SPDX-License-Identifier: Apache-2.0
"""What a person sees of an evaluation."""

import io
import math

import pytest
from rich.console import Console

from pizza.evaluation import Evaluation, Faithfulness
from pizza.render.evaluation import evaluation_view
from pizza.render.view import View

MEANINGS = {"lds": "do the scores rank?", "deletion": "how long it survives"}


def figure(measure, value, **fields):
    return Faithfulness(
        **{
            "measure": measure,
            "value": value,
            "scale": "share",
            "higher_is_better": measure == "lds",
            **fields,
        }
    )


def shown(*results, width=100, unicode=True, **fields):
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None)
    evaluation = Evaluation(results=results, metric="logprob-diff", n_units=3, **fields)
    view = View(color=False, unicode=unicode, width=width)
    console.print(evaluation_view(evaluation, MEANINGS, view))
    return stream.getvalue()


@pytest.mark.parametrize(("width", "same_line"), [(100, True), (60, False)])
def test_a_line_has_the_figure_its_error_the_control_and_the_meaning(width, same_line):
    text = shown(figure("lds", 0.75, standard_error=0.05, random=0.1), width=width)
    line = next(line for line in text.splitlines() if line.strip().startswith("lds"))
    assert line.split()[:6] == ["lds", "0.750", "+-", "0.050", "0.100", "higher"]
    assert ("do the scores rank?" in line) is same_line
    assert "do the scores rank?" in text


@pytest.mark.parametrize(
    ("measure", "value", "random", "said"),
    [
        ("lds", 0.1, 0.2, True),
        ("lds", 0.2, 0.1, False),
        ("deletion", 0.1, 0.2, False),
        ("deletion", 0.2, 0.1, True),
        ("deletion", 0.2, None, False),
        ("deletion", math.nan, 0.1, False),
    ],
)
def test_a_figure_that_chance_gives_too_is_said_to_be_one(measure, value, random, said):
    assert ("no better than chance" in shown(figure(measure, value, random=random))) is said


def test_what_is_not_defined_is_no_number():
    assert "n/a" in shown(figure("lds", math.nan, standard_error=None))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.000"), (1e-16, "0.000"), (2e-4, "2.0e-04"), (123.456, "123.5"), (1e7, "1.0e+07")],
)
def test_small_and_large_figures_stay_readable(value, text):
    assert f" {text} " in shown(figure("deletion", value))


def test_curves_are_drawn_on_one_scale_and_holes_are_seen():
    details = {"area": -1.0, "values": [0.0, -3.0, None, -6.0], "random_values": [0, -1, -5, -6]}
    text = shown(figure("deletion", 0.4, details=details))
    assert "deletion   █▅?▁  random █▇▂▁" in text
    plain = shown(figure("deletion", 0.4, details=details), unicode=False)
    assert "deletion   #+?_  random #%._" in plain
    assert plain.isascii()


def test_what_strangers_wrote_is_made_harmless():
    text = shown(
        figure("lds", 0.5, warnings=("\x1b[31mred",)),
        provenance={"backend": "\x1b]0;x\x07", "attribution": {"method": {"name": "\u202e"}}},
        warnings=("\x07",),
    )
    assert not any(ord(c) < 32 and c != "\n" for c in text)
    assert "\u202e" not in text
