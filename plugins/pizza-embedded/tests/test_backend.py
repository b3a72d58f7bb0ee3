# SPDX-License-Identifier: Apache-2.0
"""The embedded model as a backend, in this process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pizza_embedded.backend import EmbeddedBackend, open_backend
from pizza_embedded.plugin import pizza_register_backends
from support.server import runtime

from pizza.capability import Capability
from pizza.completion import Completion, Generation, Reply, Request
from pizza.errors import (
    BadRequestError,
    ConfigError,
    ContextTooLongError,
    UnknownNameError,
)
from pizza.prompt import Prompt
from pizza.specs import BackendSettings

PEARS = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"


async def answers(backend: EmbeddedBackend, requests: list[Request]) -> list[Any]:
    found = [pair async for pair in backend.answer_batch(requests)]
    assert [position for position, _ in found] == list(range(len(requests)))
    return [answer for _, answer in found]


@pytest.fixture
async def backend() -> AsyncIterator[EmbeddedBackend]:
    opened = EmbeddedBackend(runtime())
    yield opened
    await opened.aclose()


def ask(text: str = PEARS, **generation: Any) -> Request:
    return Request(prompt=Prompt.of(text), generation=Generation(**generation))


def score(target: str, text: str = PEARS, **more: Any) -> Request:
    return Request(prompt=Prompt.of(text), kind="score", target=target, **more)


async def answer(backend: EmbeddedBackend, request: Request) -> Completion:
    return (await backend.answer(request)).completion


# --- registering and opening ------------------------------------------------------------------


def test_registering_imports_neither_numpy_nor_tiktoken() -> None:
    code = (
        "import sys; from pizza_embedded import plugin; plugin.pizza_register_backends(); "
        "print([m for m in ('numpy', 'tiktoken', 'aiohttp', 'openai') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_spec_opens_a_backend_that_has_what_it_offers() -> None:
    (spec,) = pizza_register_backends()
    backend = open_backend(BackendSettings(model=spec.default_model))
    assert (spec.name, spec.key_variable) == ("embedded", "")
    assert backend.capabilities == spec.offers
    assert backend.uncertain == frozenset()
    assert backend.name == "embedded:default"
    assert backend.identity == f"embedded:{backend.runtime.identity}"


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'default'"):
        open_backend(BackendSettings(model="defualt"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "http://127.0.0.1:1/v1"}, "openai:NAME"),
        ({"options": {"wieghts": "x"}}, "known: 'weights'"),
        ({"options": {"weights": "/no/such/folder"}}, "/no/such/folder"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_backend(BackendSettings(model="default", **settings))


# --- completing -------------------------------------------------------------------------------


async def test_a_completion_has_tokens_logprobs_and_alternatives(
    backend: EmbeddedBackend,
) -> None:
    made = await answer(backend, ask(top_logprobs=5))
    assert made.text == "".join(made.tokens) != ""
    assert not made.text.startswith(" ")
    assert made.finish_reason == "stop"
    assert made.logprobs is not None
    assert made.alternative_tokens is not None
    assert made.alternative_logprobs is not None
    assert made.alternative_logprobs.shape == (len(made.tokens), 5)
    # Greedy: the best alternative is what was written.
    for place, token in enumerate(made.tokens):
        assert made.alternative_tokens[place][0] == token
        assert made.alternative_logprobs[place, 0] == made.logprobs[place]
        assert np.all(np.diff(made.alternative_logprobs[place]) <= 0)
    assert made.usage.completion_tokens == len(made.tokens)
    assert made.usage.prompt_tokens == backend.count_tokens(ask())


async def test_without_logprobs_there_are_none(backend: EmbeddedBackend) -> None:
    request = Request(prompt=Prompt.of(PEARS), logprobs=False)
    made = await answer(backend, request)
    assert made.logprobs is None
    assert made.alternative_tokens is None
    assert made.text == (await answer(backend, ask())).text


async def test_a_batch_answers_as_its_members_alone_do(backend: EmbeddedBackend) -> None:
    requests = [
        *[ask(PEARS.replace("5", str(n)), top_logprobs=3) for n in range(2, 9)],
        *[score(str(n)) for n in range(3)],
        ask("Hello there!", max_tokens=2),
        score("a longer target than the others", "Short."),
    ]
    together = await answers(backend, requests)
    for request, reply in zip(requests, together, strict=True):
        assert isinstance(reply, Reply)
        alone = await answer(backend, request)
        assert reply.completion.tokens == alone.tokens
        assert alone.logprobs is not None
        assert reply.completion.logprobs is not None
        np.testing.assert_allclose(reply.completion.logprobs, alone.logprobs, atol=1e-4)


async def test_max_tokens_cuts_with_finish_reason_length(backend: EmbeddedBackend) -> None:
    long = ask("Repeat: one two three four five six", max_tokens=2)
    made = await answer(backend, long)
    assert len(made.tokens) <= 3
    assert (made.finish_reason, made.usage.completion_tokens) == ("length", len(made.tokens))


async def test_a_stop_string_ends_the_output_and_is_not_part_of_it(
    backend: EmbeddedBackend,
) -> None:
    whole = await answer(backend, ask("Repeat: one two three four"))
    middle = whole.text[2]
    made = await answer(backend, ask("Repeat: one two three four", stop=(middle,)))
    assert made.text == whole.text[: whole.text.index(middle)]
    assert made.text == "".join(made.tokens)
    assert made.finish_reason == "stop"


async def test_seeds_repeat_and_samples_differ(backend: EmbeddedBackend) -> None:
    def drawn(seed: int | None, sample: int = 0) -> Request:
        # Hot enough that a model which is sure of its answer writes anything at all.
        made = Generation(temperature=20.0, seed=seed, max_tokens=24)
        return Request(prompt=Prompt.of(PEARS), generation=made, sample=sample)

    first, again, repeat, other = [
        (await answer(backend, request)).text
        for request in (drawn(1), drawn(1), drawn(1, sample=1), drawn(2))
    ]
    assert first == again
    assert repeat == other != first
    free = {(await answer(backend, drawn(None))).text for _ in range(4)}
    assert len(free) > 1


# --- scoring ----------------------------------------------------------------------------------


async def test_a_scored_text_has_the_tokens_and_scores_it_was_written_with(
    backend: EmbeddedBackend,
) -> None:
    for text in (PEARS, "Repeat: alpha beta Gamma 17", "Hello!", "The film was terrible. Good?"):
        written = await answer(backend, ask(text, top_logprobs=4))
        scored = await answer(
            backend, score(written.text, text, generation=Generation(top_logprobs=4))
        )
        assert scored.text == written.text
        assert scored.tokens == written.tokens
        assert scored.alternative_tokens == written.alternative_tokens
        assert scored.logprobs is not None
        assert written.logprobs is not None
        np.testing.assert_allclose(scored.logprobs, written.logprobs, atol=1e-4)
        assert scored.finish_reason is None


async def test_outputs_in_unusual_tokens_line_up_with_their_scores_too(
    backend: EmbeddedBackend,
) -> None:
    requests = [
        Request(
            prompt=Prompt.of(PEARS),
            generation=Generation(temperature=3.0, seed=seed, max_tokens=12, top_logprobs=1),
        )
        for seed in range(24)
    ]
    for reply in await answers(backend, requests):
        assert isinstance(reply, Reply)
        written = reply.completion
        if "�" in written.text or not written.text:
            continue
        scored = await answer(backend, score(written.text))
        assert (scored.text, scored.tokens) == (written.text, written.tokens)


@pytest.mark.parametrize("target", ["5", "unknown", "über 🍕", "שלום עולם", "a\0b", " 5", "\n", ""])
async def test_any_target_can_be_scored(backend: EmbeddedBackend, target: str) -> None:
    scored = await answer(backend, score(target))
    assert scored.logprobs is not None
    assert np.all(scored.logprobs <= 0)
    assert np.all(np.isfinite(scored.logprobs))
    assert scored.text == target
    assert scored.usage.completion_tokens == 0


async def test_tokens_that_are_pieces_of_characters_have_a_printable_text(
    backend: EmbeddedBackend,
) -> None:
    scored = await answer(backend, score("🍕"))
    assert len(scored.tokens) > 1
    assert "".join(scored.tokens) == "\\xf0\\x9f\\x8d\\x95"
    assert all(token.isprintable() for token in scored.tokens)


# --- bad input --------------------------------------------------------------------------------


async def test_a_context_that_is_too_long_says_how_long_it_may_be(
    backend: EmbeddedBackend,
) -> None:
    fine, long = ask(), ask("word " * 20_000)
    replies = await answers(backend, [fine, long, score("x " * 2000)])
    assert isinstance(replies[0], Reply)
    for reply, request in zip(replies[1:], (long, score("x " * 2000)), strict=True):
        assert isinstance(reply, ContextTooLongError)
        assert reply.limit == backend.runtime.context_length
        assert reply.got is not None
        assert abs(reply.got - backend.count_tokens(request)) <= 1
    with pytest.raises(ContextTooLongError, match="shorten the prompt"):
        await backend.answer(long)


async def test_the_last_token_of_the_context_can_be_used(backend: EmbeddedBackend) -> None:
    limit = backend.runtime.context_length
    text = "word"
    while backend.count_tokens(ask(text + " word")) < limit:
        text += " word"
    while backend.count_tokens(ask(text)) < limit - 1:
        text += "."
    assert backend.count_tokens(ask(text)) == limit - 1
    made = await answer(backend, ask(text, max_tokens=64))
    assert made.usage.completion_tokens <= 1


async def test_what_it_cannot_do_is_a_bad_request(backend: EmbeddedBackend) -> None:
    tool = Request(prompt=Prompt.chat([{"role": "tool", "content": "x"}]))
    extra = ask(extra={"logit_bias": {}})
    replies = await answers(backend, [tool, extra])
    assert [type(reply) for reply in replies] == [BadRequestError, BadRequestError]
    assert "logit_bias" in str(replies[1])
    assert backend.count_tokens(tool) > 0


async def test_system_and_earlier_messages_count(backend: EmbeddedBackend) -> None:
    messages = [
        {"role": "developer", "content": "Answer with one word."},
        {"role": "user", "content": PEARS},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "How many apples does Ana have?"},
    ]
    request = Request(prompt=Prompt.chat(messages))
    made = await answer(backend, request)
    assert made.usage.prompt_tokens == backend.count_tokens(request) > backend.count_tokens(ask())
    assert made.text


# --- tokenizer and embeddings -----------------------------------------------------------------


@given(st.text(max_size=60))
def test_token_spans_tile_any_text(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    tokenizer = EmbeddedBackend(runtime()).tokenizer
    spans = tokenizer.spans(text)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(start < end for start, end in spans)
    assert [start for start, _ in spans[1:]] == [end for _, end in spans[:-1]]


def test_the_token_table_knows_what_is_not_text() -> None:
    backend = EmbeddedBackend(runtime())
    table = backend.token_table
    assert table.embeddings.shape[0] == len(table.tokens) == backend.runtime.vocab_size
    assert not table.embeddings.flags.writeable
    special = backend.runtime.tokenizer.special
    assert set(special.values()) <= table.special
    assert table.tokens[special["<|end|>"]] == "<|end|>"
    assert all("\\x" not in token for i, token in enumerate(table.tokens) if i not in table.special)
    assert backend.token_table is table


def test_it_costs_nothing() -> None:
    assert EmbeddedBackend(runtime()).price.cost(10**6, 10**6) == 0
    assert Capability.SCORE in EmbeddedBackend(runtime()).capabilities


# --- threads and cancellation -----------------------------------------------------------------


async def test_the_loop_runs_on_while_the_model_works(backend: EmbeddedBackend) -> None:
    requests = [ask(f"{PEARS} {'filler ' * 40}{n}") for n in range(64)]
    task = asyncio.create_task(_collect(backend, requests))
    ticks = 0
    while not task.done():
        await asyncio.sleep(0)
        ticks += 1
    assert len(task.result()) == 64
    # Were the model on the loop, the task would be done after its first step.
    assert ticks > 10


async def _collect(backend: EmbeddedBackend, requests: list[Request]) -> list[Any]:
    return list(await answers(backend, requests))


async def test_a_cancelled_call_stops_early_and_leaves_the_thread_usable() -> None:
    backend = EmbeddedBackend(runtime())
    computed = 0
    began = threading.Event()
    generate = backend.runtime.generate

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(backend.runtime, name)

        def generate(self, prompts: Any, **options: Any) -> Any:
            nonlocal computed
            computed += len(prompts)
            began.set()
            return generate(prompts, **options)

    backend._inference.runtime = Counting()  # type: ignore[assignment]
    task = asyncio.create_task(_collect(backend, [ask(f"{PEARS} {n}") for n in range(400)]))
    await asyncio.to_thread(began.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await answer(backend, ask())).text
    assert computed < 400
    await backend.aclose()


async def test_closing_ends_the_thread() -> None:
    before = set(threading.enumerate())
    backend = EmbeddedBackend(runtime())
    await backend.answer(ask())
    (mine,) = set(threading.enumerate()) - before
    assert mine.name.startswith("pizza-embedded")
    await backend.aclose()
    assert not mine.is_alive()


async def test_closing_an_unused_backend_leaves_nothing() -> None:
    before = set(threading.enumerate())
    await EmbeddedBackend(runtime()).aclose()
    assert set(threading.enumerate()) <= before
