# SPDX-License-Identifier: Apache-2.0
"""A run over 500 requests that a test kills: ``killable.py PORT CACHE`` prints each answer."""

import asyncio
import sys
from pathlib import Path

from pizza_openai.backend import OpenAIBackend

from pizza._engine.scheduler import Scheduler
from pizza.caches.sqlite import SqliteCache
from pizza.completion import Generation, Request
from pizza.limits import Limits
from pizza.prompt import Message, Prompt
from pizza.specs import BackendSettings


async def main(port: int, path: Path) -> None:
    generation = Generation(max_tokens=16)
    backend = OpenAIBackend(
        BackendSettings(model="m", base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-test")
    )
    cache = SqliteCache(path)
    work = [
        Request(prompt=Prompt(messages=(Message(text=f"#{i} "),)), generation=generation)
        for i in range(500)
    ]
    limits = Limits(max_concurrency=10)
    async with (
        Scheduler(backend, cache=cache, limits=limits) as scheduler,
        scheduler.stream(work) as outcomes,
    ):
        async for outcome in outcomes:
            if outcome.answer is None:
                raise SystemExit(f"no answer: {outcome.error}")
            print(outcome.index, flush=True)
    await cache.aclose()
    await backend.aclose()


asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
