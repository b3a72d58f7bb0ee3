# SPDX-License-Identifier: Apache-2.0
"""The Batch API against a real model behind a real server: answers, failures, and their end."""

import asyncio
import logging
import time
from contextlib import asynccontextmanager, contextmanager

import numpy as np
import pytest
from pizza_embedded.server.batch_options import BatchOptions
from pizza_openai.batch import OpenAIBatchBackend
from pizza_openai.batch_clock import SystemClock
from pizza_openai.batch_journal import Journal
from pizza_openai.batch_lines import Ask
from pizza_openai.batch_options import BatchOptions as JournalOptions
from pizza_openai.errors import UnknownModelError
from support.server import served_model

import pizza
from pizza import bulk
from pizza.completion import Reply
from pizza.errors import (
    AskAgainError,
    AuthError,
    BackendError,
    BudgetExceededError,
    CacheError,
    CapabilityError,
    ConfigError,
    ContextTooLongError,
    MalformedResponseError,
    PizzaError,
    RetriesExhaustedError,
    TransientError,
    UnknownNameError,
)
from pizza.specs import BackendSettings

QUESTION = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"
FAST = {"gather_s": 0.02, "poll_s": 0.01, "poll_max_s": 0.05}


class Hurry:
    """A clock on which waiting takes no time; it remembers the waits."""

    def __init__(self):
        self.waits = []

    def time(self):
        return time.time() + sum(self.waits)

    async def sleep(self, seconds):
        self.waits.append(seconds)
        await asyncio.sleep(0)


@contextmanager
def serving(options="", **more):
    with served_model(batches=BatchOptions.parse(options), **more) as server:
        yield server


@asynccontextmanager
async def opened(server, *, model="embedded", clock=None, api_key=None, **options):
    settings = BackendSettings(
        model=model,
        base_url=server.base_url,
        api_key=api_key,
        options={"journal": "off", **FAST, **options},
    )
    backend = OpenAIBatchBackend(settings, clock=clock)
    try:
        yield backend
    finally:
        await backend.aclose()


def session(server, *, model="openai-batch:embedded", cache=None, **options):
    more = {"journal": "off", **FAST, **options} if "batch" in model else {}
    return pizza.Session(model, base_url=server.base_url, backend_options=more, cache=cache)


async def answers(backend, requests):
    """Results in the requests' order; what is to be asked again is, as by the scheduler."""
    found = await attempts(backend, requests)
    while again := [n for n, result in enumerate(found) if isinstance(result, AskAgainError)]:
        results = await attempts(backend, [requests[n] for n in again])
        for n, result in zip(again, results, strict=True):
            found[n] = result
    return found


async def attempts(backend, requests):
    found = {}
    async for position, result in backend.answer_batch(requests):
        assert position not in found
        found[position] = result
    assert sorted(found) == list(range(len(requests)))
    return [found[position] for position in range(len(requests))]


async def outcome(work):
    try:
        return await work
    except PizzaError as error:
        return error


async def until(condition):
    while not condition():  # noqa: ASYNC110 - what it waits for is on another thread
        await asyncio.sleep(0)


@pytest.fixture
def questions(ask):
    return lambda n, **more: [ask(f"Repeat: number {i}", max_tokens=6, **more) for i in range(n)]


# --- the same answers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"evidence": "complete", "metrics": ["prob-diff", "edit-distance"]},
        {"method": "kernel-shap", "budget": 60},
        {"budget": 60},
        {"method": "hierarchical"},
    ],
    ids=["leave-one-out", "complete", "kernel-shap", "auto", "hierarchical"],
)
async def test_scores_are_those_of_single_requests(how):
    with serving() as server:
        async with session(server) as batched:
            ours = await batched.attribute(QUESTION, **how)
        single_requests = server.stats["requests"].get("/v1/chat/completions", 0)
        rounds = server.stats["batches"]
        async with session(server, model="openai:embedded") as plain:
            theirs = await plain.attribute(QUESTION, **how)
    assert rounds["completed"] >= 2
    assert single_requests <= 1  # whether the server scores is found out at once
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=0, atol=1e-12, equal_nan=True)
    assert ours.output.text == theirs.output.text


@pytest.mark.parametrize("api", ["chat", "responses", "completions"])
async def test_every_endpoint_takes_batches(ask, api):
    with serving() as server:
        async with opened(server, api=api) as backend:
            results = await answers(backend, [ask("Hello", max_tokens=3), ask("Bye", max_tokens=3)])
    for result in results:
        assert isinstance(result, Reply)
        assert result.completion.logprobs is not None
        assert result.completion.usage.total_tokens > 0


async def test_answers_of_single_requests_serve_batches_and_the_other_way_round(tmp_path):
    with serving() as server:
        async with session(server, cache=tmp_path / "a.sqlite") as first:
            await first.attribute(QUESTION)
        paid = server.stats["admitted"]
        async with session(server, model="openai:embedded", cache=tmp_path / "a.sqlite") as second:
            await second.attribute(QUESTION)
        assert server.stats["admitted"] == paid
        assert server.stats["duplicates"] == 0


async def test_many_prompts_share_batches():
    prompts = [f"Bob has {n} pears. How many pears does Bob have?" for n in range(2, 8)]
    with serving() as server:
        async with (
            session(server, gather_s=0.3) as opened_session,
            opened_session.attribute_many(prompts, evidence="complete") as outcomes,
        ):
            found = [outcome async for outcome in outcomes]
        assert all(outcome.error is None for outcome in found)
        # The first reference alone, then the other ones with its round, then their rounds.
        assert server.stats["batch_calls"]["create"] == 3


async def test_a_run_puts_the_requests_of_many_rows_into_one_batch(tmp_path):
    pytest.importorskip("pyarrow", reason="installed with the extra 'bulk'")
    rows = [{"prompt": f"Bob has {n} pears. How many?"} for n in range(40)]
    with serving() as server:
        summary = await bulk.run(
            rows,
            tmp_path / "run",
            model="openai-batch:embedded",
            base_url=server.base_url,
            backend_options={"journal": "off", **FAST, "gather_s": 0.5},
            options={"evidence": "complete", "generation": pizza.Generation(max_tokens=4)},
        )
        assert (summary.reason, summary.done) == ("finished", 40)
        # The first reference alone, then the other ones with its round, then their rounds: with
        # as many rows at once as for single requests it would be twice as many.
        assert server.stats["batch_calls"]["create"] <= 4


async def test_the_price_is_half():
    settings = BackendSettings(model="gpt-4o-mini", api_key="key", options={"journal": "off"})
    backend = OpenAIBatchBackend(settings)
    assert (backend.price.prompt, backend.price.completion) == (0.075, 0.3)
    assert "half" in backend.price.source
    own = BackendSettings(
        model="gpt-4o-mini", api_key="key", options={"journal": "off", "price": (1, 2)}
    )
    given = OpenAIBatchBackend(own)
    assert (given.price.prompt, given.price.completion) == (1, 2)
    for made in (backend, given):
        await made.aclose()


# --- limits of a batch ------------------------------------------------------------------------


async def test_too_many_requests_are_several_batches(questions):
    with serving("max-requests=5") as server:
        async with opened(server, max_requests=5) as backend:
            results = await answers(backend, questions(12))
        assert server.stats["batches"] == {"completed": 3}
    assert all(isinstance(result, Reply) for result in results)


async def test_too_many_bytes_are_several_batches_and_a_request_beyond_them_fails_alone(
    ask, questions
):
    with serving("max-bytes=1000") as server:
        async with opened(server, max_bytes=1000) as backend:
            requests = [*questions(4), ask("word " * 300)]
            results = await answers(backend, requests)
        assert server.stats["batches"] == {"completed": 2}
    assert all(isinstance(result, Reply) for result in results[:4])
    assert isinstance(results[4], BackendError)
    assert "larger than a batch may be (1,000 bytes)" in str(results[4])


async def test_a_file_that_is_refused_costs_the_other_batches_nothing(ask, questions):
    """The server takes less than the client was told: one upload is answered with 413."""
    with serving("max-bytes=1000") as server:
        async with opened(server, max_requests=2) as backend:
            requests = [*questions(2), ask("word " * 300), ask("Hello"), *questions(4)[2:]]
            results = await answers(backend, requests)
        assert server.stats["batches"] == {"completed": 2}
        assert server.stats["batch_lines"] == 4
    refused = [isinstance(result, BackendError) for result in results]
    assert refused == [False, False, True, True, False, False]
    assert "larger than the limit of 1000 bytes" in str(results[2])


async def test_a_full_queue_is_waited_for_with_smaller_batches(questions):
    clock = Hurry()
    with serving("max-queued-tokens=4000") as server:
        async with opened(server, clock=clock) as backend:
            results = await answers(backend, questions(90))
        stats = server.stats
    assert all(isinstance(result, Reply) for result in results)
    assert stats["batches"]["failed"] >= 1
    assert stats["batch_lines"] == 90


async def test_one_question_under_two_names_is_asked_once(ask):
    with serving() as server:
        async with opened(server) as backend:
            twice = await answers(backend, [ask("Hello"), ask("Hello"), ask("Hello", sample=1)])
        assert server.stats["batch_lines"] == 2
    assert all(isinstance(result, Reply) for result in twice)


# --- waiting ----------------------------------------------------------------------------------


async def test_waits_grow_from_seconds_to_a_minute(questions):
    clock = Hurry()
    with serving("delay=0.3") as server:
        async with opened(server, clock=clock, poll_s=2, poll_max_s=60) as backend:
            await answers(backend, questions(1))
    assert clock.waits[:4] == [2, 3, 4.5, 6.75]
    assert max(clock.waits) <= 60
    assert clock.waits == sorted(clock.waits)


# --- failures ---------------------------------------------------------------------------------


async def test_what_an_expired_batch_answered_counts_and_the_rest_is_asked_again(questions):
    with serving("expire=3") as server:
        async with opened(server) as backend:
            results = await answers(backend, questions(10))
        assert server.stats["batches"] == {"expired": 1, "completed": 1}
        assert server.stats["batch_lines"] == 10
    assert all(isinstance(result, Reply) for result in results)


async def test_a_batch_that_the_server_cancels_is_like_an_expired_one(questions):
    async def from_the_dashboard(backend, server):
        await until(lambda: server.stats["batch_calls"].get("retrieve", 0) >= 1)
        async for batch in backend._transfers.batches.list():
            await backend._transfers.batches.cancel(batch.id)

    with serving("delay=1.5") as server:
        async with opened(server) as backend, asyncio.TaskGroup() as group:
            group.create_task(from_the_dashboard(backend, server))
            asked = group.create_task(answers(backend, questions(4)))
        assert server.stats["batches"] == {"cancelled": 1, "completed": 1}
        assert server.stats["batch_lines"] == 4
    assert all(isinstance(result, Reply) for result in asked.result())


@asynccontextmanager
async def capped(server, max_calls, *, model="openai-batch:embedded", attempts=6, **options):
    async with pizza.Session(
        model,
        base_url=server.base_url,
        backend_options={"journal": "off", **FAST, **options},
        budget=pizza.Budget(max_calls=max_calls),
        retry=pizza.RetryPolicy(wait_initial_s=0.01, attempts=attempts),
        cache=None,
    ) as opened_session:
        yield opened_session


async def all_of(opened_session, requests):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(outcome(opened_session.submit(one))) for one in requests]
    return [task.result() for task in tasks]


async def test_lines_that_fail_for_the_moment_are_asked_again(questions):
    with serving("fail=0.4,seed=1") as server:
        async with capped(server, 500, attempts=20) as opened_session:
            results = await all_of(opened_session, questions(30))
            assert opened_session.statistics.calls == server.stats["batch_lines"] > 30
        assert server.stats["duplicates"] == 0
    assert not [result for result in results if isinstance(result, PizzaError)]


async def test_a_cap_holds_over_lines_that_fail(questions):
    with serving("fail=0.4,seed=1") as server:
        async with capped(server, 40, attempts=20) as opened_session:
            results = await all_of(opened_session, questions(30))
            assert opened_session.statistics.calls == server.stats["batch_lines"] == 40
    assert any(isinstance(result, BudgetExceededError) for result in results)
    assert any(not isinstance(result, PizzaError) for result in results)


async def test_a_batch_that_took_hours_does_not_use_up_the_deadline(questions):
    """`RetryPolicy.deadline_s` is meant for attempts of seconds."""
    with serving("fail=0.4,seed=1") as server:
        async with pizza.Session(
            "openai-batch:embedded",
            base_url=server.base_url,
            backend_options={"journal": "off", **FAST},
            retry=pizza.RetryPolicy(wait_initial_s=0.01, attempts=20, deadline_s=1e-6),
            cache=None,
        ) as opened_session:
            results = await all_of(opened_session, questions(10))
    assert not [result for result in results if isinstance(result, PizzaError)]


async def test_lines_that_fail_for_ever_are_given_up(questions):
    with serving("fail=1") as server:
        async with opened(server) as backend:
            results = await answers(backend, questions(3))
        assert server.stats["batches"] == {"completed": 1}
        async with capped(server, 100, attempts=2) as opened_session:
            given_up = await all_of(opened_session, questions(3))
            assert opened_session.statistics.calls == 6
        assert server.stats["batch_lines"] == 3 + 6
    assert all(isinstance(result, TransientError) for result in results)
    assert "HTTP 500" in str(results[0])
    assert all(isinstance(result, RetriesExhaustedError) for result in given_up)


async def test_a_cap_holds_while_a_model_refuses_fields(questions):
    with serving() as server:
        model = "openai-batch:embedded-reasoning-strict"
        async with capped(server, 10, model=model) as opened_session:
            results = await all_of(opened_session, questions(12, logprobs=False))
            assert opened_session.statistics.calls == server.stats["batch_lines"] == 10
    assert sum(isinstance(result, BudgetExceededError) for result in results) == 3


async def test_a_request_that_is_refused_fails_alone(ask, questions):
    with serving() as server:
        async with opened(server) as backend:
            *good, bad = await answers(backend, [*questions(3), ask("word " * 5000)])
        assert server.stats["batches"] == {"completed": 1}
    assert all(isinstance(result, Reply) for result in good)
    assert isinstance(bad, ContextTooLongError)
    assert bad.limit == 1024


async def test_results_that_cannot_be_read_are_said_and_their_requests_fail(questions, caplog):
    with serving("malformed=2") as server:
        async with opened(server) as backend:
            results = await answers(backend, questions(6))
            assert server.stats["batch_lines"] == 6
            # They are asked again by whoever keeps the budget: they were paid for.
            failed = [n for n, result in enumerate(results) if not isinstance(result, Reply)]
            assert len(failed) == 2
            assert all(isinstance(results[n], MalformedResponseError) for n in failed)
            asked = questions(6)
            again = await answers(backend, [asked[n] for n in failed])
        assert server.stats["batch_lines"] == 8
    assert all(isinstance(result, Reply) for result in again)
    assert "2 lines of the results" in caplog.text


async def test_a_cap_holds_in_batches(questions):
    with serving() as server:
        async with pizza.Session(
            "openai-batch:embedded",
            base_url=server.base_url,
            backend_options={"journal": "off", **FAST},
            budget=pizza.Budget(max_calls=10),
        ) as opened_session:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(outcome(opened_session.submit(one))) for one in questions(15)
                ]
            refused = [isinstance(task.result(), BudgetExceededError) for task in tasks]
            assert sum(refused) == 5
            assert opened_session.statistics.calls == 10
        assert server.stats["batch_lines"] == 10


async def test_unreadable_results_count_against_the_budget(ask):
    with serving("malformed=9,first=2") as server:
        cap = pizza.Budget(max_calls=2)
        async with pizza.Session(
            "openai-batch:embedded",
            base_url=server.base_url,
            backend_options={"journal": "off", **FAST},
            budget=cap,
            retry=pizza.RetryPolicy(wait_initial_s=0.01, attempts=2),
        ) as opened_session:
            with pytest.raises(RetriesExhaustedError, match="cannot be read"):
                await opened_session.submit(ask("Hello", max_tokens=2))
            with pytest.raises(BudgetExceededError):
                await opened_session.submit(ask("Bye", max_tokens=2))
        assert server.stats["batch_lines"] == 2


async def test_fields_that_the_model_refuses_are_left_out_next_time(questions):
    with serving() as server:
        async with opened(server, model="embedded-reasoning-strict") as backend:
            results = await answers(backend, questions(5, logprobs=False))
            assert server.stats["batches"] == {"completed": 2}
            await answers(backend, questions(7, logprobs=False))
            assert server.stats["batches"] == {"completed": 3}
        # The first five of the seven were found in the second batch.
        assert server.stats["batch_lines"] == 5 + 5 + 2
    assert all(isinstance(result, Reply) for result in results)


async def test_a_model_without_logprobs_says_so(questions):
    with serving() as server:
        async with opened(server, model="embedded-reasoning") as backend:
            results = await answers(backend, questions(2))
    assert all(isinstance(result, CapabilityError) for result in results)
    assert "edit-distance" in str(results[0])


async def test_an_unknown_model_fails_the_batch_as_such(questions):
    with serving() as server:
        async with opened(server, model="embeded") as backend:
            results = await answers(backend, questions(2))
        assert server.stats["batches"] == {"failed": 1}
    assert all(isinstance(result, UnknownModelError) for result in results)


async def test_a_wrong_key_is_not_tried_twice(questions):
    with serving(api_key="right") as server:
        async with opened(server, api_key="wrong", max_requests=2) as backend:
            results = await answers(backend, questions(5))
        assert server.stats["statuses"] == {"401": 1}
    assert all(isinstance(result, AuthError) for result in results)


async def test_a_server_without_batches_is_said_to_be_one(questions):
    with serving() as server:
        settings = BackendSettings(
            model="embedded",
            base_url=server.base_url.replace("/v1", "/elsewhere"),
            options={"journal": "off", **FAST},
        )
        backend = OpenAIBatchBackend(settings)
        (result,) = await answers(backend, questions(1))
        await backend.aclose()
        assert server.stats["statuses"] == {"404": 1}
    assert isinstance(result, BackendError)
    assert "/v1/files and /v1/batches" in str(result)


async def test_without_a_key_openai_is_not_contacted(questions):
    backend = OpenAIBatchBackend(
        BackendSettings(model="gpt-4o-mini", options={"journal": "off", **FAST})
    )
    (result,) = await answers(backend, questions(1))
    assert isinstance(result, AuthError)
    assert "OPENAI_API_KEY" in str(result)
    await backend.aclose()


async def test_a_server_that_is_not_there_is_tried_again_for_minutes(questions):
    clock = Hurry()
    with serving() as server:
        server.stop()
        async with opened(server, clock=clock) as backend:
            (result,) = await answers(backend, questions(1))
    assert isinstance(result, TransientError)
    assert "could not connect" in str(result)
    assert sum(clock.waits) > 60


async def test_a_call_without_an_answer_begins_no_second_batch(questions):
    """The answer to the create call never comes: the next attempt finds the batch."""
    with serving("hang=create") as server:
        async with opened(server) as backend:
            backend._calls._short = backend._transfers.with_options(timeout=1.0)
            results = await answers(backend, questions(4))
        assert server.stats["batch_calls"]["create"] == 1
        assert server.stats["batch_lines"] == 4
    assert all(isinstance(result, Reply) for result in results)


# --- cancelling -------------------------------------------------------------------------------


async def test_cancelling_the_caller_cancels_its_batch_and_says_so(caplog):
    with serving("delay=600") as server:
        async with session(server) as opened_session:
            task = asyncio.create_task(opened_session.attribute(QUESTION))
            await until(lambda: server.stats["batch_calls"].get("retrieve"))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: server.stats["batches"])
            assert server.stats["batches"] == {"cancelled": 1}
            assert server.stats["batch_lines"] == 0
    assert "is cancelled; none of its requests was answered" in caplog.text


async def test_cancelling_one_caller_leaves_the_batch_of_the_others(ask):
    with serving("delay=1") as server:
        async with session(server, gather_s=0.3) as opened_session:
            await opened_session.submit(ask("First", max_tokens=2))  # it would go alone
            seen = server.stats["batch_calls"]["retrieve"]
            gone = asyncio.create_task(opened_session.submit(ask("Hello", max_tokens=2)))
            stays = asyncio.create_task(opened_session.submit(ask("Bye", max_tokens=2)))
            await until(lambda: server.stats["batch_calls"]["retrieve"] > seen)
            gone.cancel()
            assert (await stays).text
        assert server.stats["batches"] == {"completed": 2}
        assert server.stats["batch_lines"] == 3


async def test_a_batch_that_somebody_else_waits_for_is_not_cancelled(questions):
    with serving("delay=1") as server:
        async with opened(server) as backend:
            stays = asyncio.create_task(answers(backend, questions(3)))
            await until(lambda: server.stats["batch_calls"].get("retrieve"))
            gone = asyncio.create_task(answers(backend, questions(2)))
            await until(lambda: max(backend._handover._waiting.values()) == 2)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            results = await stays
            assert not backend._handover._waiting
        assert server.stats["batches"] == {"completed": 1}
        assert "cancel" not in server.stats["batch_calls"]
    assert all(isinstance(result, Reply) for result in results)


async def test_a_batch_that_is_kept_is_found_by_the_next_run(tmp_path, caplog, questions):
    keep = {"journal": str(tmp_path / "journal.sqlite"), "on_cancel": "keep"}
    with serving("delay=1") as server:
        async with opened(server, **keep) as backend:
            task = asyncio.create_task(answers(backend, questions(3)))
            await until(lambda: server.stats["batch_calls"].get("retrieve"))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert "goes on without us" in caplog.text
        async with opened(server, **keep) as backend:
            results = await answers(backend, questions(3))
        assert server.stats["batch_calls"]["create"] == 1
        assert server.stats["batches"] == {"completed": 1}
    assert all(isinstance(result, Reply) for result in results)


# --- what a journal may hold ------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    """Writes a batch into a journal as a program that was killed left it; gives the path."""

    async def made(backend, requests, *, file=None, batch=None, more=()):
        asks = [Ask(request=request, positions=[0]) for request in requests]
        assert [backend._lines.prepare(ask) for ask in asks] == [None] * len(asks)
        path = tmp_path / "journal.sqlite"
        journal = Journal(path, SystemClock())
        await journal.plan("tag", [*(ask.key for ask in asks), *more])
        if file is not None:
            await journal.uploaded("tag", file)
        if batch is not None:
            await journal.created("tag", batch)
        await journal.aclose()
        return asks

    return made


@pytest.mark.parametrize(
    "left",
    [
        {},
        {"more": ["another request"]},
        {"file": "file-that-has-expired"},
        {"file": "file-of-more", "more": ["another request"]},
        {"file": "file-1", "batch": "batch_of_another_account"},
    ],
    ids=["planned", "planned more", "file is gone", "file of more", "batch is gone"],
)
async def test_what_no_batch_holds_is_handed_over(written, tmp_path, questions, left):
    journal = str(tmp_path / "journal.sqlite")
    with serving() as server:
        async with opened(server, journal=journal) as backend:
            await written(backend, questions(3), **left)
            results = await answers(backend, questions(4))
        assert server.stats["batch_lines"] == 4
        assert server.stats["batches"] == {"completed": sum(server.stats["batches"].values())}
        async with opened(server, journal=journal) as backend:
            again = await answers(backend, questions(4))
        assert server.stats["batch_lines"] == 4
    assert all(isinstance(result, Reply) for result in results)
    assert [r.completion for r in again] == [r.completion for r in results]


async def test_a_file_that_was_uploaded_is_used(written, tmp_path, questions):
    journal = str(tmp_path / "journal.sqlite")
    with serving() as server:
        async with opened(server, journal=journal) as backend:
            asks = await written(backend, questions(3))
            content = b"".join(backend._lines.line(ask) for ask in asks)
            await backend._calls.upload("tag", content)
            results = await answers(backend, questions(5))
        assert server.stats["batch_lines"] == 5
        # The one that was there, and one for the two requests that were not in it.
        assert server.stats["batch_calls"]["upload"] == 2
        assert server.stats["batch_calls"]["create"] == 2
    assert all(isinstance(result, Reply) for result in results)


async def test_a_journal_that_cannot_be_used_costs_nothing(tmp_path, questions):
    (tmp_path / "journal").write_text("something else, and long enough to be seen as such" * 5)
    with serving() as server:
        async with opened(server, journal=str(tmp_path / "journal")) as backend:
            with pytest.raises(CacheError, match="not a database"):
                await answers(backend, questions(2))
        assert server.stats["batch_calls"] == {}


# --- said beforehand --------------------------------------------------------------------------


async def test_it_says_that_answers_may_take_a_day(questions, caplog):
    with serving() as server:
        async with opened(server) as backend:
            with caplog.at_level(logging.WARNING, "pizza.openai"):
                await answers(backend, questions(2))
    assert "2 requests are in batch batch_" in caplog.text
    assert "may take up to 24 hours" in caplog.text
    assert backend.batch_window_s == 24 * 3600


def test_the_journal_is_beside_the_cache_of_answers(monkeypatch, tmp_path):
    monkeypatch.setenv("PIZZA_CACHE", str(tmp_path / "answers.sqlite"))
    options, rest = JournalOptions.of({"api": "chat"})
    assert options.journal == tmp_path / "openai-batches.sqlite"
    assert rest == {"api": "chat"}
    assert JournalOptions.of({"journal": "off"})[0].journal is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"poll_s": 0}, ConfigError, "poll_s=0 is not a number of seconds"),
        ({"attempts": 1.5}, ConfigError, "attempts=1.5 is not a whole number"),
        ({"max_requests": True}, ConfigError, "max_requests=True"),
        ({"on_cancel": "ask"}, ConfigError, "on_cancel='ask' is not one of 'cancel', 'keep'"),
        ({"journal": 7}, ConfigError, "journal=7 is neither a path nor 'off'"),
        ({"pol_s": 1}, UnknownNameError, "openai-batch is called 'pol_s'.*poll_s"),
    ],
)
def test_wrong_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        OpenAIBatchBackend(BackendSettings(model="m", api_key="key", options=options))
