# SPDX-License-Identifier: Apache-2.0
"""The Responses endpoint."""

import numpy as np
import pytest

from pizza.completion import Usage
from pizza.errors import (
    BackendUnavailableError,
    BadRequestError,
    CapabilityError,
    MalformedResponseError,
    RefusedError,
)


def answer(*parts, status="completed", **more):
    return {
        "id": "resp_1",
        "object": "response",
        "model": "some-model-001",
        "status": status,
        "error": None,
        "incomplete_details": None,
        "output": [
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": list(parts)},
        ],
        "usage": {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11},
        **more,
    }


def text(written, logprobs=()):
    return {"type": "output_text", "text": written, "annotations": [], "logprobs": list(logprobs)}


FIVE = {
    "token": "5",
    "logprob": -0.1,
    "bytes": [53],
    "top_logprobs": [{"token": "5", "logprob": -0.1}, {"token": "6", "logprob": -2.5}],
}


async def test_a_request_asks_for_logprobs_and_stores_nothing(stub, backend, ask):
    stub.reply(answer(text("5", [FIVE])))
    async with backend(api="responses") as opened:
        await opened.answer(ask([{"role": "system", "content": "Be brief."}], max_tokens=20))
    assert stub.requests[0].path == "/v1/responses"
    assert stub.bodies == [
        {
            "model": "some-model",
            "input": [{"role": "system", "content": "Be brief."}],
            "max_output_tokens": 20,
            "temperature": 0.0,
            "store": False,
            "include": ["message.output_text.logprobs"],
            "top_logprobs": 20,
        }
    ]


async def test_an_answer_becomes_tokens_with_alternatives(stub, backend, ask):
    stub.reply(answer(text("5", [FIVE]), text("6", [{"token": "6", "logprob": -0.3}])))
    async with backend(api="responses") as opened:
        completion = (await opened.answer(ask())).completion
    assert (completion.text, completion.tokens) == ("56", ("5", "6"))
    np.testing.assert_allclose(completion.logprobs, [-0.1, -0.3])
    assert completion.alternative_tokens == (("5", "6"), ())
    assert completion.usage == Usage(prompt_tokens=9, completion_tokens=2)
    assert (completion.finish_reason, completion.model) == ("stop", "some-model-001")


async def test_an_output_that_was_too_long_says_so(stub, backend, ask):
    details = {"reason": "max_output_tokens"}
    stub.reply(answer(text("5", [FIVE]), status="incomplete", incomplete_details=details))
    async with backend(api="responses") as opened:
        assert (await opened.answer(ask())).completion.finish_reason == "length"


@pytest.mark.parametrize("logprobs", [None, []])
async def test_missing_logprobs_name_the_metrics_that_work(stub, backend, ask, logprobs):
    stub.reply(answer({"type": "output_text", "text": "5", "logprobs": logprobs}))
    async with backend(api="responses") as opened:
        with pytest.raises(CapabilityError, match="exact-match"):
            await opened.answer(ask())


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (answer({"type": "refusal", "refusal": "I cannot help."}), RefusedError),
        (
            answer(status="incomplete", incomplete_details={"reason": "content_filter"}),
            RefusedError,
        ),
        ({"output": [{"type": "reasoning"}]}, MalformedResponseError),
        ({"status": "completed"}, MalformedResponseError),
        (
            {"output": [], "error": {"code": "server_error", "message": "try later"}},
            BackendUnavailableError,
        ),
    ],
)
async def test_an_answer_without_text_is_an_error(stub, backend, ask, body, error):
    stub.reply(body)
    async with backend(api="responses") as opened:
        with pytest.raises(error):
            await opened.answer(ask(logprobs=False))


async def test_stop_strings_are_refused_before_anything_is_sent(stub, backend, ask):
    async with backend(api="responses") as opened:
        with pytest.raises(BadRequestError, match="api='chat'"):
            await opened.answer(ask(stop=("\n",)))
    assert stub.requests == []


async def test_it_cannot_score_and_says_so_without_a_request(stub, backend, ask):
    async with backend(api="responses") as opened:
        assert not opened.uncertain
        with pytest.raises(CapabilityError, match="score"):
            await opened.answer(ask(target="5"))
    assert stub.requests == []
