# SPDX-License-Identifier: Apache-2.0
"""Chat Completions: what is sent, what is read, what servers get wrong."""

import json
import logging
import math

import numpy as np
import pytest

from pizza.capability import Capability
from pizza.completion import Usage
from pizza.errors import (
    BadRequestError,
    CapabilityError,
    MalformedResponseError,
    PermanentError,
    RefusedError,
)

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": "Use digits."},
    {"role": "user", "content": "How many? 🍕"},
]


@pytest.fixture(params=["aiohttp", "httpx"])
def http(request):
    return request.param


async def test_a_request_is_sent_with_everything_asked_for(stub, backend, ask, chat, http):
    stub.reply(chat(("5", -0.1, {"5": -0.1})))
    async with backend(http=http) as opened:
        await opened.answer(ask(CONVERSATION, max_tokens=7, stop=("\n",), extra={"top_p": 0.5}))
    assert stub.bodies == [
        {
            "model": "some-model",
            "messages": CONVERSATION,
            "max_completion_tokens": 7,
            "temperature": 0.0,
            "seed": 0,
            "stop": ["\n"],
            "logprobs": True,
            "top_logprobs": 20,
            "top_p": 0.5,
        }
    ]
    assert stub.requests[0].path == "/v1/chat/completions"


async def test_logprobs_are_not_asked_for_when_they_are_not_wanted(stub, backend, ask, chat):
    stub.reply(chat(text="5"))
    async with backend() as opened:
        reply = await opened.answer(ask(logprobs=False, seed=None))
    assert not {"logprobs", "top_logprobs", "seed"} & stub.bodies[0].keys()
    assert reply.completion.text == "5"
    assert reply.completion.logprobs is None


async def test_repetitions_get_seeds_of_their_own(stub, backend, ask, chat):
    stub.reply(chat(text="5"))
    async with backend() as opened:
        for sample in (0, 1, 2):
            await opened.answer(ask(logprobs=False, seed=10, sample=sample, temperature=1.0))
    assert [body["seed"] for body in stub.bodies] == [10, 11, 12]


async def test_an_answer_becomes_tokens_with_alternatives(stub, backend, ask, chat, http):
    stub.reply(chat(("5", -0.1, {"5": -0.1, "6": -2.5}), (" pears", -0.2, {" pears": -0.2})))
    async with backend(http=http) as opened:
        completion = (await opened.answer(ask())).completion
    assert completion.text == "5 pears"
    assert completion.tokens == ("5", " pears")
    np.testing.assert_allclose(completion.logprobs, [-0.1, -0.2])
    assert completion.alternative_tokens == (("5", "6"), (" pears",))
    np.testing.assert_allclose(completion.alternative_logprobs, [[-0.1, -2.5], [-0.2, -np.inf]])
    assert completion.usage == Usage(prompt_tokens=9, completion_tokens=2)
    assert (completion.finish_reason, completion.model) == ("stop", "some-model-001")


async def test_the_servers_limits_are_passed_on(stub, backend, ask, chat):
    headers = {"X-RateLimit-Limit-Requests": "600", "x-ratelimit-reset-tokens": "6m0s"}
    stub.reply((200, chat(text="5"), headers))
    async with backend() as opened:
        rate = (await opened.answer(ask(logprobs=False))).rate
    assert (rate.limit_requests, rate.reset_tokens_s) == (600, 360)


# --- quirks ------------------------------------------------------------------------------------


async def test_unsorted_and_missing_alternatives_are_put_in_order(stub, backend, ask, chat):
    stub.reply(
        chat(
            ("a", -3.0, {"z": -4.0, "a": -3.0, "b": -0.5}),
            ("b", -1.0, (("b", -1.0), ("c", None), ("a", -0.9))),
            ("c", -0.1, None),
        )
    )
    async with backend() as opened:
        completion = (await opened.answer(ask())).completion
    assert completion.alternative_tokens == (("b", "a", "z"), ("a", "b"), ())
    values = completion.alternative_logprobs
    np.testing.assert_allclose(values[0], [-0.5, -3.0, -4.0])
    np.testing.assert_allclose(values[1], [-0.9, -1.0, -np.inf])
    assert completion.distribution(2) == {"c": -0.1}


async def test_odd_values_do_not_break_anything(stub, backend, ask, chat):
    stub.reply(
        chat(
            ("", 0.0, {"": 0.0}),
            ("\x00\x1f", -9999.0, {"\x00\x1f": -9999.0, "": -9999.0}),
            ("x", None, []),
            ("y", 1e-6, {"y": 1e-6}),
            usage=None,
        )
    )
    async with backend() as opened:
        completion = (await opened.answer(ask())).completion
    assert completion.tokens == ("", "\x00\x1f", "x", "y")
    assert completion.logprobs[:2].tolist() == [0.0, -9999.0]
    assert math.isnan(completion.logprobs[2])
    assert completion.logprobs[3] == 0.0
    assert completion.usage == Usage()


async def test_numbers_that_are_not_json_are_read_all_the_same(stub, backend, ask, chat):
    body = json.dumps(chat(("a", -math.inf, {"b": -0.1, "a": -math.inf})))
    assert "-Infinity" in body
    stub.reply((200, body, {}))
    async with backend() as opened:
        completion = (await opened.answer(ask())).completion
    assert completion.logprobs.tolist() == [-np.inf]


async def test_an_empty_answer_is_an_answer(stub, backend, ask, chat):
    answer = chat(text="")
    answer["choices"][0]["message"]["content"] = None
    stub.reply(answer)
    async with backend() as opened:
        completion = (await opened.answer(ask())).completion
    assert (completion.text, completion.tokens) == ("", ())


async def test_content_in_parts_is_joined(stub, backend, ask, chat):
    answer = chat(text="")
    answer["choices"][0]["message"]["content"] = [
        {"type": "text", "text": "5"},
        {"type": "text", "text": " pears"},
    ]
    stub.reply(answer)
    async with backend() as opened:
        completion = (await opened.answer(ask(logprobs=False))).completion
    assert completion.text == "5 pears"


async def test_logprobs_in_the_older_form_are_read(stub, backend, ask, chat):
    answer = chat(text="5 pears")
    answer["choices"][0]["logprobs"] = {
        "tokens": ["5", " pears"],
        "token_logprobs": [-0.1, -0.2],
        "top_logprobs": [{"5": -0.1, "6": -2.0}, {" pears": -0.2}],
    }
    stub.reply(answer)
    async with backend() as opened:
        completion = (await opened.answer(ask())).completion
    assert completion.tokens == ("5", " pears")
    assert completion.alternative_tokens[0] == ("5", "6")


@pytest.mark.parametrize(
    "body",
    [
        '{"choices": [',
        "",
        "<html>busy</html>",
        "[]",
        "{}",
        '{"choices": []}',
        '{"choices": [{}]}',
        '{"choices": 5}',
    ],
)
async def test_a_body_that_cannot_be_used_is_malformed(stub, backend, ask, body, http):
    stub.reply((200, body, {}))
    async with backend(http=http) as opened:
        with pytest.raises(MalformedResponseError, match="some-model"):
            await opened.answer(ask())


@pytest.mark.parametrize(
    "change",
    [
        {"message": {"role": "assistant", "content": None, "refusal": "I cannot help."}},
        {"finish_reason": "content_filter"},
    ],
)
async def test_a_refusal_is_an_error_of_its_own(stub, backend, ask, chat, change):
    stub.reply(chat(text="no", **change))
    async with backend() as opened:
        with pytest.raises(RefusedError):
            await opened.answer(ask(logprobs=False))


# --- what servers lack -------------------------------------------------------------------------


async def test_missing_logprobs_name_the_metrics_that_work(stub, backend, ask, chat):
    stub.reply(chat(text="5 pears"))
    async with backend() as opened:
        assert Capability.LOGPROBS in opened.capabilities
        with pytest.raises(CapabilityError, match=r"exact-match.*cosine") as caught:
            await opened.answer(ask())
        assert isinstance(caught.value, PermanentError)
        assert "rouge-l" in caught.value.alternatives
        assert not opened.capabilities & {Capability.LOGPROBS, Capability.ALTERNATIVES}
        with pytest.raises(CapabilityError):
            await opened.answer(ask())
        assert len(stub.requests) == 1
        assert (await opened.answer(ask(logprobs=False))).completion.text == "5 pears"


async def test_refused_logprobs_are_asked_for_once(stub, backend, ask):
    error = {
        "message": "logprobs are not supported with reasoning models.",
        "type": "invalid_request_error",
        "param": "logprobs",
        "code": None,
    }
    stub.reply((400, {"error": error}, {}))
    async with backend() as opened:
        for _ in range(2):
            with pytest.raises(CapabilityError, match="jaccard"):
                await opened.answer(ask())
        assert Capability.LOGPROBS not in opened.capabilities
    assert len(stub.requests) == 1


async def test_fewer_alternatives_are_asked_for_when_the_server_has_a_maximum(
    stub, backend, ask, chat
):
    message = "Requested sample logprobs of 20, which is greater than max allowed: 5"
    stub.reply((400, {"message": message}, {}), chat(("5", -0.1, {"5": -0.1})))
    async with backend() as opened:
        await opened.answer(ask())
        await opened.answer(ask())
    assert [body["top_logprobs"] for body in stub.bodies] == [20, 5, 5]


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "Unrecognized request argument supplied: max_completion_tokens"}},
        {"detail": [{"loc": ["body", "max_completion_tokens"], "msg": "Extra fields not allowed"}]},
    ],
)
async def test_a_server_that_only_knows_max_tokens_gets_that(stub, backend, ask, chat, error):
    stub.reply((400 if "error" in error else 422, error, {}), chat(("5", -0.1, {"5": -0.1})))
    async with backend() as opened:
        for _ in range(2):
            assert (await opened.answer(ask(max_tokens=7))).completion.text == "5"
    assert [sorted({"max_tokens", "max_completion_tokens"} & b.keys()) for b in stub.bodies] == [
        ["max_completion_tokens"],
        ["max_tokens"],
        ["max_tokens"],
    ]


async def test_a_server_that_ignores_the_length_is_found_out(stub, backend, ask, chat, caplog):
    stub.reply(chat(*[("x", -0.1, {})] * 9, usage=(3, 9)), chat(("x", -0.1, {}), usage=(3, 1)))
    async with backend() as opened:
        with caplog.at_level(logging.WARNING):
            completion = (await opened.answer(ask(max_tokens=2))).completion
    assert completion.tokens == ("x",)
    assert stub.bodies[1]["max_tokens"] == 2
    assert "ignores max_completion_tokens" in caplog.text


async def test_a_refused_temperature_is_left_out_with_a_warning(stub, backend, ask, chat, caplog):
    error = {
        "message": "Unsupported value: 'temperature' does not support 0 with this model. "
        "Only the default (1) value is supported.",
        "param": "temperature",
        "code": "unsupported_value",
    }
    stub.reply((400, {"error": error}, {}), chat(text="5"))
    async with backend() as opened:
        with caplog.at_level(logging.WARNING):
            await opened.answer(ask(logprobs=False))
            await opened.answer(ask(logprobs=False))
    assert ["temperature" in body for body in stub.bodies] == [True, False, False]
    assert caplog.text.count("temperature") == 1


async def test_a_server_that_refuses_everything_is_not_asked_for_ever(stub, backend, ask):
    error = {"message": "temperature, seed, max_tokens, max_completion_tokens: not supported"}
    stub.reply((400, {"error": error}, {}))
    async with backend() as opened:
        with pytest.raises(BadRequestError, match="not supported"):
            await opened.answer(ask(logprobs=False))
    assert len(stub.requests) <= 5


async def test_tokens_that_all_went_into_reasoning_are_explained(stub, backend, ask, chat):
    answer = chat(text="", finish_reason="length")
    answer["usage"]["completion_tokens_details"] = {"reasoning_tokens": 2}
    stub.reply(answer)
    async with backend() as opened:
        with pytest.raises(BadRequestError, match="raise max_tokens"):
            await opened.answer(ask(logprobs=False))


# --- known by name -----------------------------------------------------------------------------

OPENAI = "https://api.openai.com/v1"


@pytest.mark.parametrize("model", ["o1", "o3-mini", "o4-mini-2025-04-16", "gpt-5", "gpt-5-nano"])
async def test_openais_reasoning_models_are_known_before_the_first_request(backend, ask, model):
    async with backend(model, base_url=OPENAI, api_key="k") as opened:
        assert Capability.LOGPROBS not in opened.capabilities
        with pytest.raises(CapabilityError, match="edit-distance"):
            await opened.answer(ask())


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-4.1", "gpt-5-chat-latest", "ft:gpt-4o:o::i"])
async def test_openais_other_models_have_logprobs_and_no_scoring(backend, ask, model):
    async with backend(model, base_url=OPENAI, api_key="k") as opened:
        assert {Capability.LOGPROBS, Capability.ALTERNATIVES} <= opened.capabilities
        assert Capability.SCORE not in opened.capabilities | opened.uncertain
        with pytest.raises(CapabilityError, match="score"):
            await opened.answer(ask(target="5"))


async def test_names_say_nothing_about_other_peoples_servers(backend):
    async with backend("o1") as opened:
        assert Capability.LOGPROBS in opened.capabilities
        assert Capability.SCORE in opened.uncertain
