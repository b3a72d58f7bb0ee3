# SPDX-License-Identifier: Apache-2.0
"""Lines of batches: written as single requests are, read whatever a server writes into them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pizza_openai.batch_lines import Again, Ask, Lines, portions, read_row
from pizza_openai.chat import ChatEndpoint
from pizza_openai.errors import Translator
from pizza_openai.keys import KeyRing
from pizza_openai.learned import Learned

from pizza.completion import Reply, Request
from pizza.errors import (
    AskAgainError,
    AuthError,
    BackendError,
    BackendUnavailableError,
    BadRequestError,
    ContextTooLongError,
    MalformedResponseError,
    QuotaExhaustedError,
    RateLimitedError,
    RefusedError,
)
from pizza.prompt import Prompt

KEY = "a-made-up-key-of-an-account"


def made_lines():
    keys, learned = KeyRing(KEY, placeholder=False), Learned()
    errors = Translator(name="openai-batch:m", url="http://h/v1", keys=keys)
    endpoint = ChatEndpoint(model="m", translator=errors, learned=learned)
    return Lines(
        identity="i",
        endpoint=endpoint,
        errors=errors,
        learned=learned,
        path="/v1/chat/completions",
    )


@pytest.fixture
def lines():
    return made_lines()


@pytest.fixture
def asked(lines, ask):
    def made(text="How many?", **more):
        prepared = Ask(request=ask(text, **more), positions=[0])
        assert lines.prepare(prepared) is None
        return prepared

    return made


def row(name="x", *, status=200, body=None, error=None):
    response = None if error else {"status_code": status, "request_id": "r", "body": body}
    return read_row(
        json.dumps({"id": "b", "custom_id": name, "response": response, "error": error}).encode()
    )


def test_a_line_is_what_the_api_wants(lines, asked):
    ask = asked('quotes " and\nlines\u2028', max_tokens=7)
    written = lines.line(ask)
    assert written.endswith(b"}\n")
    assert written.count(b"\n") == 1
    read = json.loads(written)
    assert (read["method"], read["url"]) == ("POST", "/v1/chat/completions")
    assert read["custom_id"] == ask.key
    assert len(ask.key) <= 64
    assert read["body"]["messages"][0]["content"] == 'quotes " and\nlines\u2028'
    assert ask.body in written


def test_keys_tell_requests_apart(asked):
    keys = {
        asked(text, sample=sample, max_tokens=most).key
        for text in ("a", "b")
        for sample in (0, 1)
        for most in (5, 6)
    }
    assert len(keys) == 8
    assert asked("a", max_tokens=5).key in keys


@pytest.mark.parametrize(
    ("sizes", "most", "most_bytes", "expected"),
    [
        ([1, 1, 1], 2, 100, [2, 1]),
        ([5, 5, 5], 9, 10, [2, 1]),
        ([50, 5], 9, 10, [1, 1]),  # whoever gets it says that it is too large
        ([], 9, 10, []),
    ],
)
def test_portions_keep_to_both_limits(sizes, most, most_bytes, expected):
    given_lines = [(None, b"x" * size) for size in sizes]
    groups = list(portions(given_lines, max_requests=most, max_bytes=most_bytes))
    assert [len(group) for group in groups] == expected
    assert [line for group in groups for line in group] == given_lines


def said(message, code=None):
    return {"error": {"message": message, "code": code, "type": "t", "param": None}}


def test_an_answer_is_read(lines, asked, chat):
    outcome = lines.outcome(asked(), row(body=chat(("5", -0.1, {"5": -0.1, "6": -2.5}))))
    assert isinstance(outcome, Reply)
    assert outcome.completion.text == "5"
    assert outcome.completion.logprobs.tolist() == [-0.1]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, said("Incorrect API key"), AuthError),
        (429, said("no money", "insufficient_quota"), QuotaExhaustedError),
        (400, said("too long", "context_length_exceeded"), ContextTooLongError),
        (400, said("no", "content_filter"), RefusedError),
        (200, {"choices": []}, MalformedResponseError),
        (200, None, MalformedResponseError),
        (200, "text", MalformedResponseError),
    ],
)
def test_failures_for_good_have_the_types_of_single_requests(lines, asked, status, body, error):
    outcome = lines.outcome(asked(), row(status=status, body=body))
    assert type(outcome) is error or isinstance(outcome, error)


@pytest.mark.parametrize(
    ("given_row", "error"),
    [
        (row(status=429, body=said("slow down", "rate_limit_exceeded")), RateLimitedError),
        (row(status=500, body=None), BackendUnavailableError),
        (row(status=503, body="<html>"), BackendUnavailableError),
    ],
)
def test_failures_for_the_moment_are_left_to_who_keeps_the_budget(lines, asked, given_row, error):
    assert isinstance(lines.outcome(asked(), given_row), error)


@pytest.mark.parametrize(
    "given_row",
    [
        row(error={"code": "batch_expired", "message": "late"}),
        row(error={"code": "batch_cancelled", "message": ""}),
        row(status=0, body=None),
    ],
)
def test_what_was_not_run_is_handed_over_again(lines, asked, given_row):
    outcome = lines.outcome(asked(), given_row)
    assert isinstance(outcome, Again)
    assert isinstance(outcome.why, BackendUnavailableError)
    assert not outcome.free


def test_a_field_that_one_line_taught_is_corrected_in_all(lines, asked):
    asks = [asked(text) for text in "abc"]
    refusal = said("Unsupported value: 'temperature' is not supported", "unsupported_value")
    outcomes = [lines.outcome(ask, row(status=400, body=refusal)) for ask in asks]
    assert {type(outcome) for outcome in outcomes} == {AskAgainError}
    assert all(isinstance(outcome.__cause__, BadRequestError) for outcome in outcomes)
    for ask in asks:
        assert lines.prepare(ask) is None
        assert b"temperature" not in ask.body
    # It is left out by now: the same refusal again is an answer.
    again = lines.outcome(asks[0], row(status=400, body=refusal))
    assert type(again) is BadRequestError


def test_keys_of_accounts_are_not_repeated(lines, asked):
    outcome = lines.outcome(asked(), row(error={"code": "x", "message": f"not {KEY}"}))
    assert "not " in str(outcome.why)
    assert KEY not in str(outcome.why)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["custom_id", "response", "error", "status_code", "body", "code", "choices"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_line_is_too_strange_to_be_read(content):
    found = read_row(content)
    assert found is None or isinstance(found.custom_id, str)


@given(status=st.sampled_from([0, 200, 204, 302, 400, 404, 429, 500, 999]), body=JSON)
def test_no_answer_is_too_strange_to_be_one_of_three_things(status, body):
    lines = made_lines()
    ask = Ask(request=Request(prompt=Prompt.of("x")), positions=[0])
    assert lines.prepare(ask) is None
    found = row(status=status, body=body)
    if found is not None:
        assert isinstance(lines.outcome(ask, found), Reply | BackendError | Again)
