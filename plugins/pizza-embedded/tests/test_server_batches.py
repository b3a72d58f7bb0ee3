# SPDX-License-Identifier: Apache-2.0
"""Files and batches of the served model, through the real openai client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from openai.types import Batch
from pizza_embedded.server.batch_options import BatchOptions
from support.server import ServedModel, served_model

PATH = "/v1/chat/completions"
OPEN = ("validating", "in_progress", "finalizing", "cancelling")


@contextmanager
def serving(options: str = "", **more: Any) -> Iterator[ServedModel]:
    with served_model(batches=BatchOptions.parse(options), **more) as server:
        yield server


@asynccontextmanager
async def talking(server: ServedModel, api_key: str = "none") -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=server.base_url, api_key=api_key, max_retries=0) as client:
        yield client


def body(text: str, **more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": text}
    return {"model": "embedded", "messages": [message], "temperature": 0, "max_tokens": 4, **more}


def line(name: str, text: str = "Hello!", url: str = PATH, **more: Any) -> bytes:
    return json.dumps(
        {"custom_id": name, "method": "POST", "url": url, "body": body(text, **more)}
    ).encode()


@dataclass
class Ended:
    batch: Batch
    output: dict[str, Any]
    errors: dict[str, Any]


async def begun(client: AsyncOpenAI, *lines: bytes, endpoint: Any = PATH) -> Batch:
    file = await client.files.create(file=("in.jsonl", b"\n".join(lines)), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"who": "me"}
    )


async def ended(client: AsyncOpenAI, batch: Batch) -> Ended:
    while batch.status in OPEN:
        batch = await client.batches.retrieve(batch.id)
    return Ended(
        batch,
        await rows(client, batch.output_file_id),
        await rows(client, batch.error_file_id),
    )


async def rows(client: AsyncOpenAI, file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    content = (await client.files.content(file)).content
    read = [json.loads(row) for row in content.splitlines()]
    return {row["custom_id"]: row for row in read}


async def test_a_batch_answers_what_single_requests_get() -> None:
    names = [f"number-{n}" for n in range(100)]
    with serving() as server:
        async with talking(server) as client:
            lines = [line(name, f"Repeat: {name}") for name in names]
            batch = await begun(client, *lines)
            assert (batch.object, batch.status) == ("batch", "validating")
            assert batch.metadata == {"who": "me"}
            assert batch.expires_at == batch.created_at + 86_400
            done = await ended(client, batch)
            single = await client.chat.completions.create(**body("Repeat: number-7"))
        stats = server.stats
    assert done.batch.status == "completed"
    assert done.batch.request_counts is not None
    assert done.batch.request_counts.to_dict() == {"total": 100, "completed": 100, "failed": 0}
    assert done.batch.error_file_id is None
    assert set(done.output) == set(names)
    assert list(done.output) != names  # the order says nothing
    row = done.output["number-7"]
    assert row["error"] is None
    assert row["response"]["status_code"] == 200
    answer = row["response"]["body"]
    assert answer["choices"] == [choice.to_dict() for choice in single.choices]
    assert answer["usage"]["total_tokens"] == single.usage.total_tokens
    assert stats["requests"] == {PATH: 1}  # lines of batches are counted apart
    assert stats["batch_lines"] == 100
    assert stats["duplicates"] == 0
    assert stats["batches"] == {"completed": 1}


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/completions", {"model": "embedded", "prompt": "Hello", "max_tokens": 2}),
        ("/v1/responses", {"model": "embedded", "input": "Hello", "max_output_tokens": 2}),
    ],
)
async def test_all_endpoints_take_batches(path: str, asked: dict[str, Any]) -> None:
    row = {"custom_id": "a", "method": "POST", "url": path, "body": {**asked, "temperature": 0}}
    with serving() as server:
        async with talking(server) as client:
            batch = await begun(client, json.dumps(row).encode(), endpoint=path)
            done = await ended(client, batch)
    assert done.output["a"]["response"]["body"]["usage"]


async def test_files_are_listed_read_and_deleted() -> None:
    with serving() as server:
        async with talking(server) as client:
            made = [
                await client.files.create(file=(f"{n}.jsonl", bytes([65 + n])), purpose="batch")
                for n in range(3)
            ]
            found = await client.files.retrieve(made[1].id)
            assert (found.filename, found.bytes, found.purpose) == ("1.jsonl", 1, "batch")
            assert (await client.files.content(made[2].id)).content == b"C"
            listed = [file.id async for file in client.files.list(limit=2)]
            assert listed == [file.id for file in reversed(made)]
            assert [f.id async for f in client.files.list(purpose="batch_output")] == []
            assert (await client.files.delete(made[0].id)).deleted
            with pytest.raises(openai.NotFoundError, match="No such File"):
                await client.files.retrieve(made[0].id)


async def test_batches_are_listed_newest_first_in_pages() -> None:
    with serving("delay=60") as server:
        async with talking(server) as client:
            made = [(await begun(client, line("a"))).id for _ in range(5)]
            assert [batch.id async for batch in client.batches.list(limit=2)] == made[::-1]
            first = await client.batches.list(limit=2)
            assert [batch.id for batch in first.data] == made[:2:-1]
            with pytest.raises(openai.BadRequestError, match="limit"):
                await client.batches.list(limit=101)


async def test_an_expired_batch_has_answers_and_errors() -> None:
    with serving("expire=2") as server:
        async with talking(server) as client:
            lines = [line(str(n), f"Repeat: {n}") for n in range(5)]
            done = await ended(client, await begun(client, *lines))
            again = await ended(client, await begun(client, *lines))
        assert server.stats["batch_lines"] == 2 + 5
    assert done.batch.status == "expired"
    assert sorted(done.output) == ["0", "1"]
    assert sorted(done.errors) == ["2", "3", "4"]
    assert {row["error"]["code"] for row in done.errors.values()} == {"batch_expired"}
    assert {row["response"] for row in done.errors.values()} == {None}
    assert again.batch.status == "completed"


async def test_a_cancelled_batch_runs_nothing_more() -> None:
    with serving("delay=60") as server:
        async with talking(server) as client:
            batch = await begun(client, line("a"), line("b"))
            cancelled = await client.batches.cancel(batch.id)
            assert cancelled.status == "cancelling"
            done = await ended(client, cancelled)
            with pytest.raises(openai.ConflictError, match="cancelled"):
                await client.batches.cancel(batch.id)
        assert server.stats["batch_lines"] == 0
    assert done.batch.status == "cancelled"
    assert {row["error"]["code"] for row in done.errors.values()} == {"batch_cancelled"}


async def test_failing_lines_are_in_the_error_file_and_another_attempt_is_another_draw() -> None:
    lines = [line(str(n), f"Repeat: {n}") for n in range(40)]
    with serving("fail=0.5,seed=3") as server:
        async with talking(server) as client:
            first = await ended(client, await begun(client, *lines))
            second = await ended(client, await begun(client, *lines))
    assert first.batch.status == "completed"
    assert len(first.output) + len(first.errors) == 40
    assert 10 < len(first.errors) < 30
    row = next(iter(first.errors.values()))
    assert row["response"]["status_code"] == 500
    assert row["response"]["body"]["error"]["type"] == "server_error"
    assert set(first.errors) != set(second.errors)


async def test_a_request_that_is_refused_is_refused_in_its_line() -> None:
    with serving() as server:
        async with talking(server) as client:
            lines = [line("good"), line("bad", temperature=9), line("long", "word " * 5000)]
            done = await ended(client, await begun(client, *lines))
    assert list(done.output) == ["good"]
    errors = {name: row["response"] for name, row in done.errors.items()}
    assert {response["status_code"] for response in errors.values()} == {400}
    assert errors["bad"]["body"]["error"]["param"] == "temperature"
    assert errors["long"]["body"]["error"]["code"] == "context_length_exceeded"


async def test_malformed_output_is_cut_lines_among_whole_ones() -> None:
    with serving("malformed=2") as server:
        async with talking(server) as client:
            lines = [line(str(n), f"Repeat: {n}") for n in range(5)]
            batch = await begun(client, *lines)
            while batch.status in OPEN:
                batch = await client.batches.retrieve(batch.id)
            assert batch.output_file_id is not None
            content = (await client.files.content(batch.output_file_id)).content.splitlines()
    assert len(content) == 5
    assert sum(row.endswith(b"}") for row in content) == 3


@pytest.mark.parametrize(
    ("content", "code", "number"),
    [
        ([], "empty_file", None),
        ([b"{"], "invalid_json_line", 1),
        ([line("a"), b'{"custom_id": "b"}'], "invalid_json_line", 2),
        ([line("a"), line("b"), line("a")], "duplicate_custom_id", 3),
        ([line("a", url="/v1/responses")], "invalid_url", 1),
        ([line("a", model="gpt-4o")], "model_not_found", None),
        ([line("a"), line("b", model="gpt-4o")], "mismatched_model", None),
        ([line(str(n)) for n in range(5)], "too_many_tasks", None),
    ],
)
async def test_a_bad_input_file_fails_the_batch_before_anything_runs(
    content: list[bytes], code: str, number: int | None
) -> None:
    with serving("max-requests=4") as server:
        async with talking(server) as client:
            done = await ended(client, await begun(client, *content))
        assert server.stats["batch_lines"] == 0
    assert done.batch.status == "failed"
    assert done.batch.errors is not None
    assert done.batch.errors.data is not None
    error = done.batch.errors.data[0]
    assert (error.code, error.line) == (code, number)
    assert done.batch.output_file_id is None


async def test_a_full_queue_fails_a_batch() -> None:
    lines = [line(str(n), "word " * 100) for n in range(10)]
    with serving("delay=60,max-queued-tokens=2000") as server:
        async with talking(server) as client:
            await begun(client, *lines)
            done = await ended(client, await begun(client, *lines))
    assert done.batch.status == "failed"
    assert done.batch.errors is not None
    assert done.batch.errors.data is not None
    assert done.batch.errors.data[0].code == "token_limit_exceeded"


async def test_bad_calls_are_refused_in_the_words_of_the_api() -> None:
    with serving("max-bytes=1000", api_key="right") as server:
        async with talking(server, "right") as client:
            with pytest.raises(openai.APIStatusError, match="1000 bytes") as caught:
                await client.files.create(file=("in.jsonl", b"x" * 2000), purpose="batch")
            assert caught.value.status_code == 413
            with pytest.raises(openai.BadRequestError, match="fine-tune"):
                await client.files.create(file=("in.jsonl", b"x"), purpose="fine-tune")
            with pytest.raises(openai.NotFoundError, match="No such File"):
                await client.batches.create(
                    input_file_id="file-none", endpoint=PATH, completion_window="24h"
                )
            with pytest.raises(openai.BadRequestError, match="/v1/embeddings"):
                await begun(client, line("a"), endpoint="/v1/embeddings")
            with pytest.raises(openai.NotFoundError, match="No batch found"):
                await client.batches.retrieve("batch_none")
        async with talking(server, "wrong") as client:
            with pytest.raises(openai.AuthenticationError):
                await client.files.list()
        async with aiohttp.ClientSession(headers={"authorization": "Bearer right"}) as http:
            async with http.post(f"{server.base_url}/files", data={"purpose": "batch"}) as answer:
                assert answer.status == 400
            async with http.post(f"{server.base_url}/files", json={}) as answer:
                assert answer.status == 400
            async with http.put(f"{server.base_url}/batches") as answer:
                assert answer.status == 404


async def test_a_call_that_hangs_took_effect() -> None:
    with serving("hang=create+content") as server:
        async with talking(server) as client:
            waits = asyncio.create_task(begun(client, line("a")))
            while not server.stats["hung"]:  # noqa: ASYNC110 - it is on another thread
                await asyncio.sleep(0)
            waits.cancel()
            (batch,) = [batch async for batch in client.batches.list()]
            while batch.status in OPEN:
                batch = await client.batches.retrieve(batch.id)
            assert batch.output_file_id is not None
            half = asyncio.create_task(client.files.content(batch.output_file_id))
            while "content" not in server.stats["hung"]:  # noqa: ASYNC110
                await asyncio.sleep(0)
            half.cancel()
            assert list(await rows(client, batch.output_file_id)) == ["a"]


async def test_a_server_stops_in_the_middle_of_a_batch() -> None:
    with serving("delay=600") as server:
        async with talking(server) as client:
            await begun(client, line("a"))
        server.stop()


def test_options_are_read() -> None:
    assert BatchOptions.parse("") == BatchOptions()
    assert BatchOptions.parse(
        "delay=0.5,expire=3,malformed=1,first=2,fail=0.25,hang=create+content,max-requests=7,"
        "max-bytes=9,max-queued-tokens=8,seed=4"
    ) == BatchOptions(
        delay_s=0.5,
        expire=3,
        malformed=1,
        first=2,
        fail=0.25,
        hang=("create", "content"),
        max_requests=7,
        max_bytes=9,
        max_queued_tokens=8,
        seed=4,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("later=1", "'later=1' is not an option of batches"),
        ("delay", "NAME=VALUE"),
        ("delay=-1", "not a number from 0"),
        ("fail=2", "not a number from 0 to 1"),
        ("expire=1.5", "not a whole number"),
        ("hang=sleep", "not some of upload, create, retrieve, content"),
    ],
)
def test_wrong_options_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BatchOptions.parse(text)
