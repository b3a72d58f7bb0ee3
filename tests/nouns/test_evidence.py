# SPDX-License-Identifier: Apache-2.0
"""Kept answers: packed and unpacked they are what came; damaged files are refused."""

import copy
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pizza._engine.asking import Question
from pizza._engine.keeping import Keeper
from pizza.attribution import Attribution
from pizza.completion import Completion, pack_alternatives
from pizza.errors import IncomparableError, ResultFormatError
from pizza.evidence import MAX_ALTERNATIVES, Answers, Evidence, pack

ROOT = Path(__file__).parents[2]
REFERENCE = Completion(text="a b", tokens=("a", " b"), logprobs=[-1.0, -2.0], token_ids=(7, 8))

tokens = st.sampled_from(["a", " b", "c", "", "\U0001f355", "\x00"])
values = st.one_of(st.floats(max_value=0.0, allow_nan=False), st.just(math.nan))


@st.composite
def completions(draw):
    """Anything that a backend may answer."""
    words = draw(st.one_of(st.just(REFERENCE.tokens), st.lists(tokens, max_size=4).map(tuple)))
    n = len(words)
    ids = st.lists(st.integers(0, 2**40), min_size=n, max_size=n).map(tuple)
    rows = st.lists(st.lists(st.tuples(tokens, values), max_size=3), min_size=n, max_size=n)
    listed = draw(st.none() | rows)
    texts, logprobs = (None, None) if listed is None else pack_alternatives(listed)
    return Completion(
        text=draw(st.just("".join(words)) | st.text(max_size=5)),
        tokens=words,
        token_ids=draw(ids if words != REFERENCE.tokens else st.just((7, 8)) | ids),
        logprobs=draw(st.none() | st.lists(values, min_size=n, max_size=n)),
        alternative_tokens=texts,
        alternative_logprobs=logprobs,
        finish_reason=draw(st.sampled_from([None, "stop", "length"])),
    )


def equal(one, other):
    assert (one is None) == (other is None)
    if one is not None:
        np.testing.assert_array_equal(one, other)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(completions(), max_size=2), max_size=4))
def test_what_is_kept_is_what_came(answers):
    """Given any answers -> packed, written as JSON, read and unpacked they are the same."""
    question = Question(kind="complete", reference=REFERENCE, metrics=(), sign=1)
    keeper = Keeper([question], further=[REFERENCE])
    for row, several in enumerate(answers):
        for answer in several:
            keeper.keep(0, row, answer)
    (kept,) = keeper.evidence(len(answers))
    text = json.dumps(kept.to_dict(), allow_nan=False)
    for evidence in (kept, Evidence.from_dict(json.loads(text), len(answers))):
        assert (evidence.kind, evidence.sign, evidence.further) == ("complete", 1, (REFERENCE,))
        for row, several in enumerate(answers):
            unpacked = evidence.completions(row)
            assert len(unpacked) == len(several)
            for one, other in zip(unpacked, several, strict=True):
                for name in ("text", "tokens", "token_ids", "finish_reason", "alternative_tokens"):
                    assert getattr(one, name) == getattr(other, name)
                equal(one.logprobs, other.logprobs)
                equal(one.alternative_logprobs, other.alternative_logprobs)


def test_a_window_of_an_answer_is_its_tokens():
    texts, logprobs = pack_alternatives([[("a", -1.0)], [("b", -2.0), ("c", -3.0)], [("d", -4.0)]])
    answer = Completion(
        text="abd",
        tokens=("a", "b", "d"),
        token_ids=(1, 2, 3),
        logprobs=[-1.0, -2.0, -4.0],
        alternative_tokens=texts,
        alternative_logprobs=logprobs,
    )
    number: dict[str, int] = {}
    packed = pack(answer, REFERENCE, number, alternatives=True)
    evidence = Evidence(
        kind="complete", reference=REFERENCE, answers=((packed,),), vocabulary=tuple(number)
    )
    (part,) = evidence.completions(0, (1, 2))
    assert (part.text, part.tokens, part.token_ids) == ("b", ("b",), (2,))
    assert part.logprobs.tolist() == [-2.0]
    assert part.distribution(0) == {"b": -2.0, "c": -3.0}


def scored(logprobs):
    return Completion(text="a b", tokens=("a", " b"), token_ids=(7, 8), logprobs=logprobs)


def test_scored_answers_are_rows_of_log_probabilities():
    question = Question(kind="score", reference=REFERENCE, metrics=(), target="a b")
    keeper = Keeper([question])
    keeper.keep(0, 2, scored([-3.0, -4.0]))
    keeper.keep(0, 0, scored([-1.5, -2.5]))
    (evidence,) = keeper.evidence(3)
    np.testing.assert_array_equal(evidence.logprobs, [[-1.5, -2.5], [np.nan, np.nan], [-3.0, -4.0]])
    assert evidence.answers[1] == ()
    packed = evidence.answers[0][0]
    assert (packed.text, packed.tokens, packed.token_ids) == (None, None, None)
    assert not packed.logprobs.flags.writeable
    assert not evidence.logprobs.flags.writeable


def size(evidence):
    """Bytes of the arrays and of the objects that hold them."""
    total = 0
    for answers in evidence.answers:
        for packed in answers:
            total += sys.getsizeof(packed) + sys.getsizeof(answers)
            for name in packed.__slots__:
                value = getattr(packed, name)
                total += sys.getsizeof(value) if isinstance(value, np.ndarray) else 0
    return total


def test_a_thousand_answers_are_small():
    reference = Completion(text="x" * 64, tokens=("x",) * 64, logprobs=[-1.0] * 64)
    keeper = Keeper([Question(kind="score", reference=reference, metrics=(), target="x" * 64)])
    for row in range(1000):
        keeper.keep(0, row, Completion(text="x" * 64, tokens=("x",) * 64, logprobs=[-1.0] * 64))
    (evidence,) = keeper.evidence(1000)
    assert evidence.vocabulary == ()
    assert size(evidence) < 2 * 1000 * 64 * 8


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_alternatives_are_kept_for_all_or_for_none(order):
    texts, logprobs = pack_alternatives([[("a", -1.0), ("z", -9.0)]])
    rows = {
        row: Completion(
            text=text,
            tokens=(text,),
            logprobs=[-1.0],
            alternative_tokens=texts,
            alternative_logprobs=logprobs,
        )
        for row, text in enumerate("abc")
    }
    question = Question(kind="complete", reference=REFERENCE, metrics=())
    for most, dropped in ((6, 0), (5, 6)):
        keeper = Keeper([question], most=most)
        for row in order:
            keeper.keep(0, row, rows[row])
        (evidence,) = keeper.evidence(3)
        assert evidence.dropped == dropped
        assert [c.text for row in range(3) for c in evidence.completions(row)] == ["a", "b", "c"]
        for row in range(3):
            (answer,) = evidence.completions(row)
            if dropped:
                with pytest.raises(IncomparableError, match=f"more than {MAX_ALTERNATIVES:,}"):
                    answer.distribution(0)
                assert "z" not in evidence.vocabulary
            else:
                assert answer.distribution(0)["z"] == -9.0


def test_answers_are_a_sequence_of_texts():
    answers = Answers(("a", None))
    assert (len(answers), answers[0], answers[1:], list(answers)) == (2, "a", (None,), ["a", None])


# --- files ------------------------------------------------------------------------------------


@pytest.fixture
def document():
    page = (ROOT / "docs" / "result-format.md").read_text(encoding="utf-8")
    return json.loads(page.partition("```json\n")[2].partition("```")[0])


def change(document, path, value):
    """A copy of a document with one value changed."""
    changed = copy.deepcopy(document)
    at = changed["evaluations"]["evidence"][0]
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return changed


FIRST = ("answers", 0, 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("kind",), "guess"),
        (("sign",), 2),
        (("answers",), []),
        (("answers", 0), None),
        (("vocabulary",), [1, 2]),
        (("vocabulary",), []),
        (("reference",), {}),
        (("dropped",), "x"),
        (FIRST, "text"),
        ((*FIRST, "logprobs"), [-1.0, -2.0]),
        ((*FIRST, "logprobs"), ["x"]),
        ((*FIRST, "tokens"), [-1]),
        ((*FIRST, "tokens"), [2]),
        ((*FIRST, "tokens"), [0.5]),
        ((*FIRST, "tokens"), [10**40]),
        ((*FIRST, "token_ids"), [10**40]),
        ((*FIRST, "counts"), [3]),
        ((*FIRST, "counts"), [-2]),
        ((*FIRST, "counts"), None),
        ((*FIRST, "alternatives"), [0, 99]),
    ],
)
def test_damaged_evidence_is_refused(document, path, value):
    Attribution.from_dict(document)
    with pytest.raises(ResultFormatError, match="damaged"):
        Attribution.from_dict(change(document, path, value))


def test_a_small_file_cannot_ask_for_a_huge_array(document):
    n = 5000
    hostile = change(document, FIRST, {"counts": [n, *[0] * (n - 1)], "tokens": [0] * n})
    packed = hostile["evaluations"]["evidence"][0]["answers"][0][0]
    packed |= {"alternatives": [0] * n, "alternative_logprobs": [-1.0] * n}
    with pytest.raises(ResultFormatError, match="more alternatives than any model gives"):
        Attribution.from_dict(hostile)


def test_an_attribution_without_evidence_is_read_and_written(document):
    document["evaluations"]["evidence"] = []
    assert Attribution.from_dict(document).to_dict() == document
    old = {**document, "schema_version": 1}
    del old["evaluations"]["evidence"]
    read = Attribution.from_dict(old)
    assert len(read.warnings) == len(document["warnings"]) + 1
    again = Attribution.from_dict(read.to_dict())
    assert again.warnings == read.warnings


@pytest.mark.parametrize("version", [0, 3, "2", None, -1])
def test_other_versions_are_refused(document, version):
    with pytest.raises(ResultFormatError, match="this pizza reads 1 to 2"):
        Attribution.from_dict({**document, "schema_version": version})
