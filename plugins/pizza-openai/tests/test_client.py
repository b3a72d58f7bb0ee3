# SPDX-License-Identifier: Apache-2.0
"""The connection pool: cancellation, reuse, closing."""

import asyncio
import gc
import threading

import pytest

from pizza.errors import BackendError


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the other end has no event for it
            await asyncio.sleep(0)


@pytest.fixture(params=["aiohttp", "httpx"])
def http(request):
    return request.param


async def test_a_cancelled_call_leaves_no_connection(stub, backend, ask, chat, http):
    stub.reply(None, chat(text="5"))
    async with backend(http=http, max_concurrency=1) as opened:
        call = asyncio.create_task(opened.answer(ask(logprobs=False)))
        await stub.arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: stub.connections == 0)
        # The pool has one place: it is free again.
        assert (await opened.answer(ask(logprobs=False))).completion.text == "5"


async def test_connections_are_reused_up_to_the_concurrency(stub, backend, ask, chat, http):
    most = 0

    def reply(_):
        nonlocal most
        most = max(most, stub.connections)
        return chat(text="5")

    stub.reply(reply)
    async with backend(http=http, max_concurrency=3) as opened, asyncio.TaskGroup() as group:
        for _ in range(30):
            group.create_task(opened.answer(ask(logprobs=False)))
    assert 1 < most <= 3
    assert len(stub.requests) == 30


async def test_closing_leaves_nothing_behind(stub, backend, ask, chat, http):
    threads, tasks = threading.active_count(), len(asyncio.all_tasks())
    stub.reply(chat(text="5"))
    async with backend(http=http) as opened:
        await opened.answer(ask(logprobs=False))
    await until(lambda: stub.connections == 0)
    gc.collect()  # an unclosed transport would warn, and warnings are errors
    assert threading.active_count() == threads
    await until(lambda: len(asyncio.all_tasks()) == tasks)


async def test_a_closed_backend_opens_no_new_connections(stub, backend, ask, http):
    async with backend(http=http) as opened:
        pass
    with pytest.raises((RuntimeError, BackendError)):
        await opened.answer(ask())
    assert stub.requests == []


async def test_without_aiohttp_the_other_client_is_used(stub, backend, ask, chat, monkeypatch):
    import importlib.util

    from pizza_openai import client

    real = importlib.util.find_spec
    monkeypatch.setattr(
        client.importlib.util, "find_spec", lambda n: None if n == "aiohttp" else real(n)
    )
    stub.reply(chat(text="5"))
    async with backend() as opened:
        assert type(opened._client._client).__name__ != "DirectClient"
        assert (await opened.answer(ask(logprobs=False))).completion.text == "5"
