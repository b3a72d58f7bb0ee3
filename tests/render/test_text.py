# SPDX-License-Identifier: Apache-2.0
"""Text of strangers, made harmless."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pizza.render.text import harmless, one_line, plural


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text):
    shown = harmless(text)
    left = {c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
    assert left <= set("\n\u200c\u200d")


@given(st.text())
def test_one_line_is_one_line_and_no_longer_than_asked(text):
    shown = one_line(text, 40)
    assert len(shown) <= 40
    assert len(shown.splitlines()) <= 1


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "M", "Zs"])))
def test_ordinary_text_of_any_script_stays_as_it_is(text):
    assert harmless(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x1b]52;c;aGk=\x07", r"\x1b]52;c;aGk=\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("user\u202egpj.exe", r"user\u202egpj.exe"),
        ("a\u2066b\u2069", r"a\u2066b\u2069"),
        ("nul\x00 cr\r bell\x07", r"nul\x00 cr\r bell\x07"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("lone \ud800", r"lone \ud800"),
        ("line\u2028end", r"line\u2028end"),
        ("family \U0001f468\u200d\U0001f469", "family \U0001f468\u200d\U0001f469"),
        ("\tindented", "    indented"),
    ],
)
def test_what_is_written_for_what(text, shown):
    assert harmless(text) == shown


def test_newlines_stay_only_where_they_may():
    assert harmless("a\nb") == "a\nb"
    assert harmless("a\nb\tc", keep_newlines=False) == r"a\nb\tc"


def test_counts_agree_with_their_nouns():
    assert (plural(1, "call"), plural(0, "call"), plural(1200, "call")) == (
        "1 call",
        "0 calls",
        "1,200 calls",
    )
