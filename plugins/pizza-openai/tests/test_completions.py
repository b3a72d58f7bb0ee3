# SPDX-License-Identifier: Apache-2.0
"""Legacy Completions: writing on, and scoring a given continuation."""

import itertools

import numpy as np
import pytest

from pizza.capability import Capability
from pizza.errors import BadRequestError, CapabilityError, MalformedResponseError


def answer(tokens, *, text=None, offsets=True, **choice):
    """Tokens are ``(text, logprob, alternatives)``."""
    texts = [t for t, _, _ in tokens]
    starts = [0, *itertools.accumulate(len(t) for t in texts)][:-1]
    return {
        "object": "text_completion",
        "model": "some-model-001",
        "choices": [
            {
                "text": "".join(texts) if text is None else text,
                "index": 0,
                "logprobs": {
                    "tokens": texts,
                    "token_logprobs": [v for _, v, _ in tokens],
                    "top_logprobs": [a for _, _, a in tokens],
                    "text_offset": starts if offsets is True else offsets,
                },
                "finish_reason": "length",
                **choice,
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1},
    }


async def test_a_text_is_sent_as_it_is_and_goes_on(stub, backend, ask):
    stub.reply(answer([(" 5", -0.1, {" 5": -0.1, " 6": -2.5})]))
    async with backend(api="completions") as opened:
        completion = (await opened.answer(ask("Q: How many?\nA:", max_tokens=3))).completion
    assert stub.requests[0].path == "/v1/completions"
    assert stub.bodies == [
        {
            "model": "some-model",
            "prompt": "Q: How many?\nA:",
            "max_tokens": 3,
            "temperature": 0.0,
            "seed": 0,
            "logprobs": 20,
        }
    ]
    assert completion.tokens == (" 5",)
    assert completion.alternative_tokens == ((" 5", " 6"),)


async def test_several_messages_are_not_one_text(stub, backend, ask):
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    async with backend(api="completions") as opened:
        with pytest.raises(BadRequestError, match="api='chat'"):
            await opened.answer(ask(messages))
    assert stub.requests == []


async def test_openais_base_models_use_this_endpoint_by_themselves(backend):
    url = "https://api.openai.com/v1"
    async with backend("davinci-002", base_url=url, api_key="k") as opened:
        assert "completions" in opened.identity
        assert Capability.SCORE in opened.uncertain


async def test_no_choices_are_malformed(stub, backend, ask):
    stub.reply({"choices": []})
    async with backend(api="completions") as opened:
        with pytest.raises(MalformedResponseError, match="no choices"):
            await opened.answer(ask())


# --- scoring ---------------------------------------------------------------------------------

ECHO = [
    ("A", None, None),
    (":", -1.0, {":": -1.0}),
    (" five", -2.0, {" five": -2.0, " six": -1.5}),
    (" pears", -0.5, {" pears": -0.5}),
    (".", -0.1, {".": -0.1}),
]


async def test_echo_gives_the_targets_tokens_and_not_the_one_that_was_written(stub, backend, ask):
    stub.reply(answer(ECHO))
    async with backend(api="completions") as opened:
        completion = (await opened.answer(ask("A:", target=" five pears"))).completion
        assert Capability.SCORE in opened.capabilities
        assert Capability.SCORE not in opened.uncertain
    (body,) = stub.bodies
    assert (body["prompt"], body["echo"], body["max_tokens"]) == ("A: five pears", True, 1)
    assert completion.tokens == (" five", " pears")
    np.testing.assert_allclose(completion.logprobs, [-2.0, -0.5])
    assert completion.alternative_tokens[0] == (" six", " five")
    assert completion.text == " five pears"


async def test_a_token_across_the_boundary_is_cut_there(stub, backend, ask):
    stub.reply(
        answer([("A", None, None), (": f", -2.0, {": f": -2.0, ": s": -1.0, "x": -3.0}), *ECHO[3:]])
    )
    async with backend(api="completions") as opened:
        completion = (await opened.answer(ask("A:", target=" f pears"))).completion
    assert completion.tokens == (" f", " pears")
    assert completion.logprobs[0] == -2.0
    assert completion.alternative_tokens[0] == (" s", " f")


async def test_offsets_find_characters_that_several_tokens_share(stub, backend, ask):
    # The three tokens of one emoji: shown as escapes, all at the emoji's offset or at its end.
    tokens = [("A", None, None), (":", -1.0, None)]
    tokens += [("bytes:\\xf0\\x9f", -1.0, None), ("bytes:\\x8d", -0.5, None)]
    tokens += [("bytes:\\x95", -0.25, None), (".", -0.1, None)]
    stub.reply(answer(tokens, text="A:🍕.", offsets=[0, 1, 2, 2, 2, 3]))
    async with backend(api="completions") as opened:
        completion = (await opened.answer(ask("A:", target="🍕"))).completion
    assert completion.tokens == ("🍕",)
    np.testing.assert_allclose(completion.logprobs, [-1.75])


async def test_prompt_logprobs_are_tried_when_echo_gives_nothing(stub, backend, ask):
    def reply(request):
        if request.body.get("echo"):
            return answer([(".", -0.1, {})])
        entry = lambda t, v: {"7": {"logprob": v, "rank": 1, "decoded_token": t}}  # noqa: E731
        rows = [None, entry(":", -1.0), entry(" five", -2.0)]
        return answer([(".", -0.1, {})], prompt_logprobs=rows)

    stub.reply(reply)
    async with backend(api="completions") as opened:
        for _ in range(2):
            completion = (await opened.answer(ask("A:", target=" five"))).completion
            assert completion.tokens == (" five",)
    assert ["echo" in body for body in stub.bodies] == [True, False, False]


@pytest.mark.parametrize("error", [None, {"error": {"message": "echo is not supported"}}])
async def test_a_server_without_echo_is_asked_once(stub, backend, ask, error):
    stub.reply(answer([(".", -0.1, {})]) if error is None else (400, error, {}))
    async with backend(api="completions") as opened:
        for _ in range(2):
            with pytest.raises(CapabilityError, match="cannot score"):
                await opened.answer(ask("A:", target=" five"))
        assert Capability.SCORE not in opened.capabilities | opened.uncertain
        assert Capability.LOGPROBS in opened.capabilities
    assert len(stub.requests) == 2  # one for each way to ask


async def test_the_first_token_of_all_has_no_probability(stub, backend, ask):
    stub.reply(answer(ECHO))
    async with backend(api="completions") as opened:
        request = ask("x", target="A:")
        object.__setattr__(request.prompt.messages[0], "text", "")
        completion = (await opened.answer(request)).completion
    assert completion.tokens == ("A", ":")
    assert np.isnan(completion.logprobs[0])
