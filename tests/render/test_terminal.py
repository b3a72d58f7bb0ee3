# SPDX-License-Identifier: Apache-2.0
"""What a person sees of an attribution."""

import io
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

from pizza.attribution import Target
from pizza.prompt import Prompt
from pizza.render.facts import spending
from pizza.render.pieces import pieces, shortened
from pizza.render.terminal import attribution_view, hints, plain_text
from pizza.render.view import View

TEXT = "Ana has 3 red apples and Bob has 5 pears."
SCORES = [-2.0, 0, 0, 0, 0, 0, 3.0, 0, 8.0, 4.0]


def colored(attribution, width=80, **view):
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, force_terminal=True, color_system="truecolor", no_color=False
    )
    console.print(attribution_view(attribution, View(width=width, **view)))
    return stream.getvalue()


def without_escapes(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_pieces_joined_are_the_prompt(made):
    prompt = Prompt.template("Q: {name} is {age}.\n A: ", name="Ana Bo", age="7").fix("Bo")
    attribution = made(prompt, [1.0])
    assert ["".join(p.text for p in row) for row in pieces(attribution)] == [prompt.text]
    fixed = {p.text: p.fixed for p in pieces(attribution)[0] if p.fixed}
    assert fixed["Bo"] == "user"
    assert "Ana" in [p.text for p in pieces(attribution)[0] if p.unit is not None]


def test_without_color_strong_words_carry_their_scores(made):
    text = plain_text(made(TEXT, SCORES))
    assert "Ana[-2.00] has 3 red apples and Bob[+3.00] has 5[+8.00] pears.[+4.00]" in text
    assert "\x1b" not in text


def test_with_color_words_have_grounds_and_no_numbers(made):
    shown = colored(made(TEXT, SCORES))
    assert "5[" not in without_escapes(shown)
    strongest = re.search(r"\x1b\[([0-9;]*)m5\x1b", shown)
    assert strongest
    assert "48;2;15;86;224" in strongest[1]
    assert re.search(r"\x1b\[[0-9;]*48;2;[0-9;]*mAna\x1b", shown)
    assert not re.search(r"48;2;[0-9;]*mred", shown)


def test_the_strongest_units_come_first_whatever_their_sign(made):
    lines = plain_text(made(TEXT, SCORES), view=View(color=False, top=3)).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("Strongest units"))
    assert "3 of 10" in lines[at]
    assert [line.split()[-1] for line in lines[at + 2 : at + 5]] == ["5", "pears.", "Bob"]


def test_units_of_the_same_text_are_told_apart(made):
    text = plain_text(made("has it has", [2.0, 0.0, 1.0]))
    assert "has (1 of 2)" in text
    assert "has (2 of 2)" in text


def test_fixed_parts_are_named_with_the_reason(made):
    prompt = Prompt.from_text("Q: How many pears? A:").fix("pears")
    text = plain_text(made(prompt, [1.0]))
    assert '2 template marks ("Q:", "A:")' in text
    assert '1 part named by you ("pears")' in text


def test_calls_cache_tokens_and_cost_are_said(made):
    said = spending(made(TEXT, SCORES, cost=0.0125))
    assert said == (
        "7 model calls and 2 answers from the cache; 1,234 prompt and 7 output tokens; $0.0125"
    )
    assert spending(made(TEXT, SCORES, calls=0)) == "nothing: all 2 answers came from the cache"
    assert spending(made(TEXT, SCORES, cost=None)).endswith("cost not known")
    assert spending(made(TEXT, SCORES, cache_hits=0)).startswith("7 model calls; ")


def test_escapes_controls_and_direction_marks_are_shown_and_not_obeyed(made):
    bad = "\x1b]0;owned\x07 \u202etxt.exe [bold]loud[/bold] :smile:"
    attribution = made(
        Prompt.chat([{"role": "user", "content": f"see {bad} now"}]),
        [1.0, 2.0],
        answer=bad,
        warnings=(bad,),
        provenance={"backend": bad, "segmenter": {"name": bad, "options": {bad: bad}}},
    )
    for text in (plain_text(attribution), without_escapes(colored(attribution))):
        assert not set(text) & set("\x1b\x07\u202e")
        assert r"\x1b]0;owned\x07" in text
        assert "[bold]loud[/bold] :smile:" in text


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(made, width):
    attribution = made(
        TEXT + " 汉字 " + "x" * 300,
        SCORES,
        more=[("prob-diff", 0.1), ("token-displacement", 1), ("js-divergence", 0.01)],
        errors=0.25,
    )
    lines = plain_text(attribution, width=width, view=View(color=False, width=width)).splitlines()
    assert max(map(len, lines)) <= width


def test_metrics_that_do_not_fit_are_said_to_be_missing(made):
    attribution = made(TEXT, SCORES, more=[("prob-diff", 0.1), ("token-displacement", 1)])
    narrow = plain_text(attribution, width=60)
    assert "1 more metric did not fit" in narrow
    wide = plain_text(attribution, width=120)
    assert "did not fit" not in wide
    assert "token-displacement" in wide


def test_what_the_model_writes_without_a_unit_is_shown_where_it_was_asked(made):
    attribution = made("one two three", [3.0, 2.0, 1.0], answer="5", without=["7\x1b", "5", ""])
    table = plain_text(attribution).partition("answer without it")[2]
    one, two, three = table.strip().splitlines()[:3]
    assert one.endswith(r"7\x1b")
    assert two.endswith("the same")
    assert three.endswith("(nothing)")
    scored = made("one two three", [3.0, 2.0, 1.0], without=[None, None, None])
    assert "answer without it" not in plain_text(scored)


def test_intervals_have_a_column_as_wide_as_there_is_room(made):
    sure = made("one two three", [3.0, 1.0, 0.1], errors=0.25)
    wide, narrow = plain_text(sure, width=80), plain_text(sure, width=60)
    # 1.645 standard errors to either side.
    assert "90% interval" in wide
    assert "+2.59 to +3.41" in wide
    assert "± (90%)" in narrow
    assert "0.41" in narrow
    assert "interval" not in plain_text(made(TEXT, SCORES))


def test_what_differs_is_said_in_words(made):
    sure = plain_text(made("one two three", [3.0, 1.0, 0.1], errors=0.25), width=100)
    assert '2 of 3 units differ from zero (90% confidence); "one" is stronger than all' in sure
    unsure = plain_text(made("one two three", [3.0, 2.9, 0.1], errors=0.25), width=100)
    assert '"one" is not told apart from "two"' in unsure
    twice = plain_text(made("one one two", [3.0, 2.9, 0.1], errors=0.25), width=120)
    assert '"one (1 of 2)" is not told apart from "one (2 of 2)"' in twice


def test_undefined_scores_are_not_called_zero(made):
    text = plain_text(made("one two three", [math.nan, 1.0, 0.5]))
    assert "one[n/a]" in text
    assert text.index("two") < text.rindex("n/a")


def test_no_effect_at_all_is_said_in_words(made):
    assert "No unit changed the output" in plain_text(made(TEXT, []))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Target.given("5"), "given, not written by the model"),
        (Target.contrast("5", "3"), "why this and not '3'"),
        (Target.completion(span=(0, 1)), "characters 0 to 1"),
    ],
)
def test_what_was_explained_is_said(made, target, said):
    assert said in plain_text(made(TEXT, SCORES, target=target))


def test_chats_name_their_roles(made):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How many?"}]
    lines = plain_text(made(chat, [0, 1.0])).splitlines()
    assert lines.index("  system") < lines.index("  user")


def test_a_long_prompt_is_shown_around_its_strong_units(made):
    words = ["word"] * 5000
    words[2500] = "needle"
    scores = [0.0] * 5000
    scores[2500] = 1.0
    attribution = made(" ".join(words), scores)
    text = plain_text(attribution)
    assert "needle[+1.00]" in text
    assert "characters ..." in text
    assert len(text) < 5000
    whole = plain_text(attribution, view=View(color=False, everything=True))
    assert whole.count("word") >= 4999


def test_one_unit_as_long_as_a_book_is_cut(made):
    attribution = made("x" * 100_000, [1.0])
    assert len(plain_text(attribution)) < 10_000
    row = pieces(attribution)[0]
    cut = shortened(row, limit=1000, keep=frozenset({0}), around=2)
    assert sum(len(piece.text) for piece in cut) < 1000


def test_a_terminal_without_unicode_gets_ascii(made):
    assert plain_text(made(TEXT, SCORES), view=View(color=False, unicode=False)).isascii()


def test_commands_to_try_stay_on_one_line(made):
    command = "pizza attribute " + "x" * 200
    stream = io.StringIO()
    console = Console(file=stream, width=60)
    for line in hints([("Try:", command)]):
        console.print(line, soft_wrap=True)
    assert f"    {command}\n" in stream.getvalue()


def test_a_norm_is_not_said_to_support_the_answer(made):
    signed = made(TEXT, SCORES)
    unsigned = replace(signed, provenance={**signed.provenance, "signed": False})
    assert "Positive: it supports" in plain_text(signed)
    assert "Positive: it supports" not in plain_text(unsigned)
    assert "not in which direction" in " ".join(plain_text(unsigned).split())
    assert "works against" not in without_escapes(colored(unsigned))


def test_a_method_that_looks_inside_names_no_perturbation(made):
    how = {**made(TEXT, SCORES).provenance, "perturbation": None, "evidence": "internals"}
    text = plain_text(made(TEXT, SCORES, provenance=how))
    assert "leave-one-out with" not in text
    assert "looked inside the model" in text
