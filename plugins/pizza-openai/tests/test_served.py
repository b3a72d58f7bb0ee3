# SPDX-License-Identifier: Apache-2.0
"""Against a real model behind a real server: all endpoints, scoring, and what is refused."""

import numpy as np
import pytest

from pizza.capability import Capability
from pizza.errors import BadRequestError, CapabilityError, ContextTooLongError

QUESTION = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"


@pytest.fixture
def served(model_server, backend):
    def opened(model=model_server.model, **options):
        return backend(model, base_url=model_server.base_url, **options)

    opened.model = model_server.model
    return opened


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("http", ["aiohttp", "httpx"])
async def test_it_answers_with_logprobs(served, ask, api, http):
    async with served(api=api, http=http) as opened:
        completion = (await opened.answer(ask(QUESTION))).completion
    assert completion.text
    assert "".join(completion.tokens) == completion.text
    assert (completion.logprobs <= 0).all()
    assert completion.alternative_tokens[0][0] == completion.tokens[0]
    values = completion.alternative_logprobs
    assert (np.diff(values, axis=1) <= 0).all()
    assert completion.usage.prompt_tokens > completion.usage.completion_tokens > 0


@pytest.mark.parametrize("api", ["chat", "completions"])
async def test_scoring_its_own_answer_gives_its_own_logprobs(served, ask, api):
    prompt = QUESTION if api == "chat" else f"{QUESTION}\nA:"
    async with served(api=api) as opened:
        written = (await opened.answer(ask(prompt))).completion
        scored = (await opened.answer(ask(prompt, target=written.text))).completion
    assert scored.text == written.text
    shared = min(len(scored.tokens), len(written.tokens))
    assert scored.tokens[:shared] == written.tokens[:shared]
    np.testing.assert_allclose(scored.logprobs[:shared], written.logprobs[:shared], atol=1e-4)
    worse = (" 7" if written.text.startswith(" ") else "7") + written.text.strip()[1:]
    async with served(api=api) as opened:
        other = (await opened.answer(ask(prompt, target=worse))).completion
    assert other.logprobs.sum() < scored.logprobs.sum()


SCORE = frozenset({Capability.SCORE})


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize(("suffix", "found"), [("", SCORE), ("-no-echo", frozenset())])
async def test_the_probe_tells_the_models_apart(served, api, suffix, found):
    async with served(served.model + suffix, api=api) as opened:

        async def send(request):
            return (await opened.answer(request)).completion

        assert await opened.probe(send, SCORE) == found


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_a_model_that_refuses_logprobs_is_detected(served, ask, api):
    async with served(served.model + "-reasoning", api=api) as opened:
        with pytest.raises(CapabilityError, match="exact-match"):
            await opened.answer(ask(QUESTION))
        assert Capability.LOGPROBS not in opened.capabilities
        assert (await opened.answer(ask(QUESTION, logprobs=False))).completion.text


async def test_an_unknown_model_gets_the_nearest_name(served, ask):
    async with served(served.model + "s") as opened:
        with pytest.raises(BadRequestError, match=f"Did you mean '{served.model}'"):
            await opened.answer(ask(QUESTION))


async def test_a_prompt_that_is_too_long_is_permanent(served, ask):
    async with served() as opened:
        with pytest.raises(ContextTooLongError):
            await opened.answer(ask("word " * 20_000))
