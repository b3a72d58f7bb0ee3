# SPDX-License-Identifier: Apache-2.0
"""The clients that are compared: each sends numbered prompts to a server and says what it got."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import aiohttp
import msgspec
import openai
from aiolimiter import AsyncLimiter
from pizza_openai.backend import OpenAIBackend

from pizza._engine.scheduler import Scheduler
from pizza.abc import ResponseCache
from pizza.completion import Generation, Request
from pizza.limits import Limits, RetryPolicy
from pizza.prompt import Message, Prompt
from pizza.specs import BackendSettings

GENERATION = Generation(max_tokens=16)


@dataclass(frozen=True)
class Work:
    """What a client has to do.

    Attributes:
        port: The server's.
        n: Number of requests.
        concurrency: Requests in flight.
        rpm: The limit that the client is told, or ``None``.
        tpm: Likewise for tokens.
        lengths: Characters of each prompt, or ``None`` for short ones.
    """

    port: int
    n: int
    concurrency: int = 50
    rpm: float | None = None
    tpm: float | None = None
    lengths: tuple[int, ...] | None = None

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    def text(self, index: int) -> str:
        """The prompt with this number."""
        text = f"#{index} "
        if self.lengths is None:
            return text
        filler = "the quick brown fox jumps over the lazy dog "
        return (text + filler * (self.lengths[index] // len(filler) + 1))[: self.lengths[index]]

    def body(self, index: int) -> dict[str, object]:
        """The same request as a plain JSON body."""
        return {
            "model": "loopback",
            "messages": [{"role": "user", "content": self.text(index)}],
            "max_tokens": 16,
            "temperature": 0,
            "seed": 0,
            "logprobs": True,
            "top_logprobs": 20,
        }


@dataclass
class Took:
    """What it cost: answers, seconds, CPU seconds of this process."""

    ok: int
    wall_s: float
    cpu_s: float


@contextlib.asynccontextmanager
async def pizza_scheduler(
    work: Work, cache: ResponseCache | None = None
) -> AsyncIterator[Scheduler]:
    """Ours: the scheduler over the openai plugin."""
    settings = BackendSettings(
        model="loopback", base_url=work.url, api_key="sk-test", max_concurrency=work.concurrency
    )
    backend = OpenAIBackend(settings)
    limits = Limits(
        requests_per_minute=work.rpm,
        tokens_per_minute=work.tpm,
        max_concurrency=work.concurrency,
    )
    try:
        retry = RetryPolicy(deadline_s=1200)
        async with Scheduler(backend, limits=limits, cache=cache, retry=retry) as scheduler:
            yield scheduler
    finally:
        await backend.aclose()


def pizza_requests(work: Work, start: int = 0) -> Iterator[Request]:
    """The work as requests."""
    for index in range(start, work.n):
        prompt = Prompt(messages=(Message(text=work.text(index)),))
        yield Request(prompt=prompt, generation=GENERATION)


async def pizza(work: Work) -> Took:
    """Ours, streaming."""
    async with pizza_scheduler(work) as scheduler:
        ok = 0
        wall, cpu = time.monotonic(), time.process_time()
        async with scheduler.stream(pizza_requests(work)) as outcomes:
            async for outcome in outcomes:
                ok += outcome.answer is not None
        return Took(ok, time.monotonic() - wall, time.process_time() - cpu)


async def _all(
    work: Work, one: Callable[[int], Awaitable[object]], *, chunk: int | None = None
) -> Took:
    """All tasks at once, or in chunks of a size with the next one started after the last."""
    ok = 0

    async def attempt(index: int) -> None:
        nonlocal ok
        with contextlib.suppress(Exception):
            await one(index)
            ok += 1

    wall, cpu = time.monotonic(), time.process_time()
    for start in range(0, work.n, chunk or work.n):
        async with asyncio.TaskGroup() as group:
            for index in range(start, min(work.n, start + (chunk or work.n))):
                group.create_task(attempt(index))
        if chunk:
            await asyncio.sleep(0.1)
    return Took(ok, time.monotonic() - wall, time.process_time() - cpu)


def _client(work: Work) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=work.url, api_key="sk-test")


async def semaphore(work: Work) -> Took:
    """AsyncOpenAI with its own retries behind a semaphore."""
    slots = asyncio.Semaphore(work.concurrency)
    async with _client(work) as client:

        async def one(index: int) -> None:
            async with slots:
                await client.chat.completions.create(**work.body(index))  # type: ignore[call-overload]

        return await _all(work, one)


async def naive_limiter(work: Work) -> Took:
    """What one writes first: aiolimiter in front of AsyncOpenAI with its own retries."""
    slots = asyncio.Semaphore(work.concurrency)
    requests = AsyncLimiter(work.rpm or 1e9, 60)
    tokens = AsyncLimiter(work.tpm or 1e9, 60)
    async with _client(work) as client:

        async def one(index: int) -> None:
            async with slots:
                await requests.acquire()
                if work.tpm:
                    await tokens.acquire(len(work.text(index)) // 4 + 16)
                await client.chat.completions.create(**work.body(index))  # type: ignore[call-overload]

        return await _all(work, one)


async def chunks(work: Work) -> Took:
    """Slices of 50 with a pause between them, and AsyncOpenAI."""
    async with _client(work) as client:

        async def one(index: int) -> None:
            await client.chat.completions.create(**work.body(index))  # type: ignore[call-overload]

        return await _all(work, one, chunk=work.concurrency)


async def bare_aiohttp(work: Work) -> Took:
    """No client library at all: what the transport itself costs, with a lean parse."""
    slots = asyncio.Semaphore(work.concurrency)
    decode = msgspec.json.Decoder(_Answer).decode
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=work.concurrency)
    ) as session:

        async def one(index: int) -> None:
            async with slots:
                body = msgspec.json.encode(work.body(index))
                async with session.post(f"{work.url}/chat/completions", data=body) as response:
                    decode(await response.read())

        return await _all(work, one)


class _Alternative(msgspec.Struct, gc=False):
    token: str
    logprob: float


class _Token(msgspec.Struct, gc=False):
    token: str
    logprob: float
    top_logprobs: list[_Alternative]


class _Logprobs(msgspec.Struct, gc=False):
    content: list[_Token]


class _Choice(msgspec.Struct, gc=False):
    logprobs: _Logprobs


class _Answer(msgspec.Struct, gc=False):
    choices: list[_Choice]


CLIENTS: dict[str, Callable[[Work], Awaitable[Took]]] = {
    "pizza": pizza,
    "semaphore": semaphore,
    "naive": naive_limiter,
    "chunks": chunks,
    "aiohttp": bare_aiohttp,
}
