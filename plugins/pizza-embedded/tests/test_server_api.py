# SPDX-License-Identifier: Apache-2.0
"""The served model through the real openai client: shapes, options, refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import openai
import pytest
from openai import AsyncOpenAI
from pizza_embedded.backend import EmbeddedBackend
from support.server import ServedModel, runtime, served_model

from pizza.completion import Completion, Generation, Request
from pizza.prompt import Prompt

PEARS = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"
MESSAGES: Any = [{"role": "user", "content": PEARS}]
TEMPLATED = f"<|user|>{PEARS}<|end|><|assistant|>"


@pytest.fixture(scope="module")
def server() -> Iterator[ServedModel]:
    with served_model() as running:
        yield running


@pytest.fixture
async def client(server: ServedModel) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as opened:
        yield opened


async def in_process(request: Request) -> Completion:
    backend = EmbeddedBackend(runtime())
    try:
        return (await backend.answer(request)).completion
    finally:
        await backend.aclose()


async def refusal(client: AsyncOpenAI, status: int, **more: Any) -> dict[str, Any]:
    """The error body of a chat request that is refused."""
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(
            **{"model": "embedded", "messages": MESSAGES, "temperature": 0, **more}
        )
    assert caught.value.status_code == status
    assert isinstance(caught.value.body, dict)
    assert set(caught.value.body) == {"message", "type", "param", "code"}
    return caught.value.body


# --- the four endpoints -----------------------------------------------------------------------


async def test_models_are_listed(client: AsyncOpenAI) -> None:
    names = [model.id async for model in client.models.list()]
    assert names == [
        "embedded",
        "embedded-reasoning",
        "embedded-reasoning-strict",
        "embedded-no-echo",
    ]
    assert (await client.models.retrieve("embedded")).id == "embedded"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-4o")


async def test_chat_answers_what_the_backend_answers(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="embedded", messages=MESSAGES, temperature=0, logprobs=True, top_logprobs=5
    )
    expected = await in_process(
        Request(prompt=Prompt.of(PEARS), generation=Generation(top_logprobs=5))
    )
    (choice,) = answer.choices
    assert choice.message.content == expected.text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == expected.finish_reason == "stop"
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    content = choice.logprobs.content
    assert tuple(token.token for token in content) == expected.tokens
    assert expected.logprobs is not None
    np.testing.assert_allclose([t.logprob for t in content], expected.logprobs, atol=1e-5)
    assert expected.alternative_tokens is not None
    for token, texts in zip(content, expected.alternative_tokens, strict=True):
        assert tuple(top.token for top in token.top_logprobs) == texts
        assert bytes(token.bytes or ()).decode() == token.token
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == expected.usage.prompt_tokens
    assert answer.usage.completion_tokens == len(content)
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.model == "embedded"


async def test_chat_without_logprobs_has_none(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="embedded", messages=MESSAGES, temperature=0
    )
    assert answer.choices[0].logprobs is None


async def test_chat_honours_its_options(client: AsyncOpenAI) -> None:
    repeat: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Repeat: one two three four"}]},
    ]

    async def text(**more: Any) -> Any:
        answer = await client.chat.completions.create(model="embedded", messages=repeat, **more)
        return answer.choices

    (whole,) = await text(temperature=0)
    for name in ("max_tokens", "max_completion_tokens"):
        (short,) = await text(temperature=0, **{name: 1})
        assert short.finish_reason == "length"
        assert whole.message.content.startswith(short.message.content)
    (stopped,) = await text(temperature=0, stop=whole.message.content[1])
    assert stopped.message.content == whole.message.content[0]
    assert stopped.finish_reason == "stop"
    several = await text(temperature=2, seed=3, n=3, max_tokens=12)
    again = await text(temperature=2, seed=3, n=3, max_tokens=12)
    assert [c.message.content for c in several] == [c.message.content for c in again]
    assert len({c.message.content for c in several}) > 1
    assert [c.index for c in several] == [0, 1, 2]


async def test_a_temperature_without_a_seed_is_another_draw_every_time(
    client: AsyncOpenAI,
) -> None:
    answers = {
        (
            await client.chat.completions.create(
                model="embedded", messages=MESSAGES, temperature=2, max_tokens=16
            )
        )
        .choices[0]
        .message.content
        for _ in range(5)
    }
    assert len(answers) > 1


async def test_responses_answer_the_same(client: AsyncOpenAI) -> None:
    answer = await client.responses.create(
        model="embedded",
        input=PEARS,
        temperature=0,
        include=["message.output_text.logprobs"],
        top_logprobs=3,
    )
    expected = await in_process(
        Request(prompt=Prompt.of(PEARS), generation=Generation(top_logprobs=3))
    )
    assert answer.status == "completed"
    assert answer.output_text == expected.text
    (message,) = answer.output
    assert message.type == "message"
    (part,) = message.content
    assert part.type == "output_text"
    assert part.logprobs is not None
    assert tuple(token.token for token in part.logprobs) == expected.tokens
    assert [len(token.top_logprobs) for token in part.logprobs] == [3] * len(expected.tokens)
    assert answer.usage is not None
    assert answer.usage.input_tokens == expected.usage.prompt_tokens


async def test_responses_take_messages_and_instructions(client: AsyncOpenAI) -> None:
    answer = await client.responses.create(
        model="embedded",
        instructions="Answer with one word.",
        input=[{"role": "user", "content": [{"type": "input_text", "text": PEARS}]}],
        temperature=0,
        max_output_tokens=1,
    )
    request = Request(
        prompt=Prompt.chat([{"role": "developer", "content": "Answer with one word."}, MESSAGES[0]])
    )
    assert answer.usage is not None
    assert answer.usage.input_tokens == (await in_process(request)).usage.prompt_tokens
    if answer.status == "incomplete":
        assert answer.incomplete_details is not None
        assert answer.incomplete_details.reason == "max_output_tokens"


async def test_completions_echo_scores_the_whole_text(client: AsyncOpenAI) -> None:
    text = TEMPLATED + "5"
    answer = await client.completions.create(
        model="embedded", prompt=text, echo=True, logprobs=4, max_tokens=0, temperature=0
    )
    (choice,) = answer.choices
    assert choice.text == text
    assert choice.finish_reason == "length"
    logprobs = choice.logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.top_logprobs is not None
    assert logprobs.text_offset is not None
    assert "".join(logprobs.tokens) == text
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        assert text[offset:].startswith(token)
    # Nothing comes before the first token, so it has no probability.
    assert logprobs.token_logprobs[0] is None
    assert logprobs.top_logprobs[0] is None
    expected = await in_process(Request(prompt=Prompt.of(PEARS), kind="score", target="5"))
    assert expected.logprobs is not None
    n = len(expected.tokens)
    assert tuple(logprobs.tokens[-n:]) == expected.tokens
    np.testing.assert_allclose(logprobs.token_logprobs[-n:], expected.logprobs, atol=1e-4)
    assert all(4 <= len(row) <= 5 for row in logprobs.top_logprobs[1:])


async def test_completions_take_every_kind_of_prompt(client: AsyncOpenAI) -> None:
    ids, _ = runtime().apply_chat_template([("user", PEARS)])

    async def texts(prompt: Any, **more: Any) -> list[str]:
        answer = await client.completions.create(
            model="embedded", prompt=prompt, temperature=0, max_tokens=4, **more
        )
        return [choice.text for choice in answer.choices]

    (one,) = await texts(TEMPLATED)
    assert await texts([TEMPLATED, TEMPLATED]) == [one, one]
    assert await texts(ids) == [one]
    assert await texts([ids, ids]) == [one, one]
    assert await texts(TEMPLATED, n=2) == [one, one]
    assert await texts(TEMPLATED, echo=True) == [TEMPLATED + one]


async def test_raw_text_is_continued_where_it_stands(client: AsyncOpenAI) -> None:
    prompt = "Q: Repeat: blue sky. A:"
    answer = await client.completions.create(
        model="embedded", prompt=prompt, temperature=0, max_tokens=2, logprobs=0
    )
    (choice,) = answer.choices
    model = runtime()
    (written,) = model.generate([model.tokenizer.encode(prompt)], max_new_tokens=2)
    # No space is taken off: prompt and continuation are one text.
    assert choice.text.encode() == model.tokenizer.decode_bytes(written.token_ids)
    assert choice.logprobs is not None
    assert choice.logprobs.text_offset is not None
    assert choice.logprobs.text_offset[0] == 0


@pytest.mark.parametrize("target", ["5", "unknown", "3 or 5 pears", "über 🍕"])
async def test_vllm_prompt_logprobs_equal_the_backends_scores(
    client: AsyncOpenAI, target: str
) -> None:
    answer = await client.chat.completions.create(
        model="embedded",
        messages=[*MESSAGES, {"role": "assistant", "content": target}],
        temperature=0,
        max_tokens=1,
        extra_body={
            "prompt_logprobs": 20,
            "add_generation_prompt": False,
            "continue_final_message": True,
        },
    )
    assert answer.model_extra is not None
    entries = answer.model_extra["prompt_logprobs"]
    request = Request(prompt=Prompt.of(PEARS), kind="score", target=target)
    expected = await in_process(request)
    assert expected.logprobs is not None
    n = len(expected.tokens)
    assert entries[0] is None
    assert answer.usage is not None
    assert len(entries) == answer.usage.prompt_tokens == expected.usage.prompt_tokens
    own = [next(iter(entry.values())) for entry in entries[-n:]]
    np.testing.assert_allclose([o["logprob"] for o in own], expected.logprobs, atol=1e-4)
    if target.isascii():
        assert tuple(o["decoded_token"] for o in own) == expected.tokens
    assert expected.alternative_tokens is not None
    for entry, texts in zip(entries[-n:], expected.alternative_tokens, strict=True):
        # The prompt's own token comes on top when it is not among the most probable ones.
        assert len(entry) in (20, 21)
        ranked = {e["rank"]: e["decoded_token"] for e in entry.values() if e["rank"]}
        assert sorted(ranked) == list(range(1, 21))
        for rank, text in enumerate(texts, start=1):
            assert ranked[rank] == text or "\\x" in text


async def test_greedy_text_scores_as_it_was_written(client: AsyncOpenAI) -> None:
    written = await client.chat.completions.create(
        model="embedded", messages=MESSAGES, temperature=0, logprobs=True
    )
    content = written.choices[0].logprobs
    assert content is not None
    assert content.content is not None
    text = written.choices[0].message.content
    scored = await client.chat.completions.create(
        model="embedded",
        messages=[*MESSAGES, {"role": "assistant", "content": text}],
        max_tokens=1,
        extra_body={"prompt_logprobs": 0, "continue_final_message": True},
    )
    assert scored.model_extra is not None
    entries = scored.model_extra["prompt_logprobs"][-len(content.content) :]
    own = [next(iter(entry.values()))["logprob"] for entry in entries]
    np.testing.assert_allclose(own, [token.logprob for token in content.content], atol=1e-4)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "status", "code", "param"),
    [
        ({"model": "gpt-4o"}, 404, "model_not_found", "model"),
        ({"stream": True}, 400, "unsupported_value", "stream"),
        ({"messages": []}, 400, "empty_array", "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "invalid_value", "messages"),
        ({"temperature": "hot"}, 400, "invalid_type", "temperature"),
        ({"temperature": 3}, 400, "invalid_value", "temperature"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "invalid_value", "top_logprobs"),
        ({"top_logprobs": 3}, 400, None, "top_logprobs"),
        ({"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
        ({"n": 0}, 400, "invalid_value", "n"),
        ({"stop": list("abcde")}, 400, "array_above_max_length", "stop"),
        ({"extra_body": {"continue_final_message": True}}, 400, None, "messages"),
    ],
)
async def test_bad_requests_say_which_parameter_is_bad(
    client: AsyncOpenAI, more: dict[str, Any], status: int, code: str | None, param: str
) -> None:
    error = await refusal(client, status, **more)
    assert (error["code"], error["param"]) == (code, param)
    assert error["type"] == "invalid_request_error"


async def test_an_image_is_refused(client: AsyncOpenAI) -> None:
    image: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    error = await refusal(client, 400, messages=[{"role": "user", "content": [image]}])
    assert "text only" in error["message"]


async def test_a_context_that_is_too_long_is_400_before_the_model_works(
    client: AsyncOpenAI, server: ServedModel
) -> None:
    before = server.stats["model_jobs"]
    error = await refusal(client, 400, messages=[{"role": "user", "content": "word " * 20_000}])
    assert error["code"] == "context_length_exceeded"
    assert "maximum context length is 1024 tokens" in error["message"]
    assert server.stats["model_jobs"] == before


async def test_reasoning_models_refuse_logprobs(client: AsyncOpenAI) -> None:
    for model in ("embedded-reasoning", "embedded-reasoning-strict"):
        error = await refusal(client, 400, model=model, logprobs=True)
        assert (error["code"], error["param"]) == ("unsupported_parameter", "logprobs")
    error = await refusal(
        client, 400, model="embedded-reasoning", extra_body={"prompt_logprobs": 1}
    )
    assert error["param"] == "prompt_logprobs"
    with pytest.raises(openai.BadRequestError, match="include"):
        await client.responses.create(
            model="embedded-reasoning", input=PEARS, include=["message.output_text.logprobs"]
        )
    with pytest.raises(openai.BadRequestError, match="chat model"):
        await client.completions.create(model="embedded-reasoning", prompt=PEARS)
    answer = await client.chat.completions.create(
        model="embedded-reasoning", messages=MESSAGES, temperature=0, max_tokens=5
    )
    assert answer.choices[0].message.content


async def test_the_strict_reasoning_model_refuses_more(client: AsyncOpenAI) -> None:
    strict = "embedded-reasoning-strict"
    assert (await refusal(client, 400, model=strict))["param"] == "temperature"
    error = await refusal(client, 400, model=strict, temperature=1, max_tokens=5)
    assert (error["code"], error["param"]) == ("unsupported_parameter", "max_tokens")
    answer = await client.chat.completions.create(
        model=strict, messages=MESSAGES, max_completion_tokens=5, temperature=1
    )
    assert answer.choices[0].message.content is not None


async def test_the_deaf_model_ignores_echo_without_a_word(client: AsyncOpenAI) -> None:
    echoed = await client.completions.create(
        model="embedded-no-echo", prompt=TEMPLATED, echo=True, logprobs=1, temperature=0
    )
    plain = await client.completions.create(
        model="embedded", prompt=TEMPLATED, logprobs=1, temperature=0
    )
    assert echoed.choices == plain.choices
    scored = await client.chat.completions.create(
        model="embedded-no-echo",
        messages=MESSAGES,
        temperature=0,
        extra_body={"prompt_logprobs": 5},
    )
    assert not scored.model_extra


@pytest.mark.parametrize("prompt", [[], [1, "a"], [5000], [[5000]], [-1]])
async def test_completions_refuse_other_prompts(client: AsyncOpenAI, prompt: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="prompt"):
        await client.completions.create(model="embedded", prompt=prompt)
