# SPDX-License-Identifier: Apache-2.0
"""The same model in this process and behind HTTP, through the real openai client."""

import asyncio
import socket
import threading

import numpy as np
import psutil
import pytest
from support.server import served_model, served_process

import pizza
from pizza.errors import (
    AuthError,
    BackendUnavailableError,
    BudgetExceededError,
    BudgetTooSmallError,
    CapabilityError,
    ContextTooLongError,
    RetriesExhaustedError,
)

PROMPT = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"
QUICK = pizza.RetryPolicy(attempts=2, wait_initial_s=0.001, wait_max_s=0.002)


def session(server, *, model=None, **options):
    return pizza.Session(f"openai:{model or server.model}", base_url=server.base_url, **options)


async def in_process(**options):
    async with pizza.Session("embedded") as opened:
        return await opened.attribute(PROMPT, **options)


@pytest.mark.parametrize("evidence", ["score", "complete"])
@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_the_served_model_gives_the_same_scores(api, evidence):
    if (api, evidence) == ("responses", "score"):
        pytest.skip("the Responses API cannot score a given text")
    expected = await in_process(evidence=evidence, metrics=["logprob-diff", "prob-diff"])
    with served_model() as server:
        async with session(server, backend_options={"api": api}) as opened:
            served = await opened.attribute(
                PROMPT, evidence=evidence, metrics=["logprob-diff", "prob-diff"]
            )
    assert served.output.text == expected.output.text
    assert served.output.tokens == expected.output.tokens
    for ours, theirs in zip(served.results, expected.results, strict=True):
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-4, atol=1e-5)
    assert [u for u, _ in served.top(3)] == [u for u, _ in expected.top(3)]


async def test_a_server_that_ignores_echo_is_found_out_and_compared_by_what_it_writes():
    with served_model() as server:
        async with session(server, model=f"{server.model}-no-echo") as opened:
            result = await opened.attribute(PROMPT)
    assert result.provenance["evidence"] == "complete"
    assert np.isfinite(result.unit_scores).all()


async def test_a_model_without_log_probabilities_is_refused_with_what_works():
    with served_model() as server:
        async with session(server, model=f"{server.model}-reasoning") as opened:
            with pytest.raises(CapabilityError, match="edit-distance"):
                await opened.attribute(PROMPT, metrics="logprob-diff")
            result = await opened.attribute(PROMPT, metrics="edit-distance")
    assert result.unit_scores.max() > 0


async def test_a_wrong_key_is_asked_about_once():
    with served_model(api_key="right") as server:
        async with session(server, api_key="wrong-key-0123456789") as opened:
            with pytest.raises(AuthError) as caught:
                await opened.attribute(PROMPT)
        assert server.stats["statuses"] == {"401": 1}
    assert "wrong-key" not in str(caught.value)


async def test_an_unknown_address_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    async with pizza.Session("openai:any", base_url=url, retry=QUICK) as opened:
        with pytest.raises(RetriesExhaustedError, match=r"127\.0\.0\.1") as caught:
            await opened.attribute(PROMPT)
    assert isinstance(caught.value.__cause__, BackendUnavailableError)


async def test_a_prompt_that_is_too_long_is_refused_at_once():
    with served_model() as server:
        async with session(server) as opened:
            with pytest.raises(ContextTooLongError):
                await opened.attribute("word " * 20_000)
        assert sum(server.stats["requests"].values()) <= 1 + 1  # the probe and the reference


async def test_every_answer_survives_a_server_full_of_faults():
    expected = await in_process()
    faults = "500=0.1,drop=0.1,malformed=0.1,truncate=0.1,seed=3"
    retry = pizza.RetryPolicy(attempts=12, wait_initial_s=0.001, wait_max_s=0.002)
    with served_model(faults=faults) as server:
        async with session(server, retry=retry) as opened:
            result = await opened.attribute(PROMPT)
            assert opened.statistics.retries > 0
        assert server.stats["duplicates"] == 0
    np.testing.assert_allclose(result.scores, expected.scores, rtol=1e-4, atol=1e-5)


async def test_a_cancelled_caller_leaves_no_task_connection_or_thread_and_touches_nobody():
    expected = await in_process()
    process = psutil.Process()

    def connections():
        return [c for c in process.net_connections("tcp") if c.raddr and c.status != "TIME_WAIT"]

    with served_process("--latency", "0.2") as server:
        threads = set(threading.enumerate())
        tasks = asyncio.all_tasks()
        async with session(server) as opened:
            busy = asyncio.Event()

            def watch(progress):
                if progress.done >= 3:
                    busy.set()

            doomed = asyncio.create_task(opened.attribute(PROMPT + " Now.", on_progress=watch))
            other = asyncio.create_task(opened.attribute(PROMPT))
            await busy.wait()
            assert opened.statistics.in_flight > 0
            doomed.cancel()
            with pytest.raises(asyncio.CancelledError):
                await doomed
            result = await other
            assert asyncio.all_tasks() - tasks - {doomed, other} == set()
            assert opened.statistics.in_flight == 0
        assert asyncio.all_tasks() == tasks
        assert {t for t in threading.enumerate() if t not in threads} == set()
        assert server.stats["in_flight"] == 0
    assert connections() == []
    np.testing.assert_allclose(result.scores, expected.scores, rtol=1e-4, atol=1e-5)


async def test_a_budget_holds_at_the_server_too():
    with served_model() as server:
        prompts = [f"{PROMPT} {i}" for i in range(4)]
        async with (
            session(server, budget=pizza.Budget(max_calls=50)) as opened,
            opened.attribute_many(prompts, concurrency=4) as outcomes,
        ):
            errors = [outcome.error async for outcome in outcomes]
        assert sum(server.stats["requests"].values()) <= 50
    assert any(errors)
    assert all(isinstance(e, (BudgetExceededError, BudgetTooSmallError)) for e in errors if e)


async def test_a_cache_file_answers_the_second_run(tmp_path):
    with served_model() as server:
        async with session(server, cache=tmp_path / "answers.sqlite") as opened:
            first = await opened.attribute(PROMPT)
        sent = sum(server.stats["requests"].values())
        async with session(server, cache=tmp_path / "answers.sqlite") as opened:
            second = await opened.attribute(PROMPT)
        assert sum(server.stats["requests"].values()) == sent
    assert second.calls == 0
    assert second.cache_hits == first.calls
    np.testing.assert_array_equal(first.scores, second.scores)


async def test_a_model_that_refuses_log_probabilities_is_still_explained_by_default():
    with served_model() as server:
        async with session(server, model=f"{server.model}-reasoning") as opened:
            result = await opened.attribute(PROMPT)
    assert result.metric == "edit-distance"
    assert "no log-probabilities" in result.warnings[0]
    assert result.unit_scores.max() > 0
