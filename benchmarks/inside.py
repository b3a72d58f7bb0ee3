# SPDX-License-Identifier: Apache-2.0
"""What the process of one measurement does."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any


def lengths(n: int) -> tuple[int, ...]:
    """Characters of prompts that cost 69 to 3,019 tokens (a quarter of it, and 16 to write)."""
    rng = random.Random(7)
    return tuple(
        4 * (rng.randint(53, 400) if rng.random() < 0.8 else rng.randint(400, 3003))
        for _ in range(n)
    )


async def measure(cell: dict[str, Any]) -> dict[str, Any]:
    """What the process of a cell does."""
    name = cell["client"]
    if name in _INSIDE:
        return await _INSIDE[name](cell)
    import clients

    work = clients.Work(
        port=cell["port"],
        n=cell["n"],
        concurrency=cell["concurrency"],
        rpm=cell["rpm"],
        tpm=cell["tpm"],
        lengths=lengths(cell["n"]) if cell["token_mix"] else None,
    )
    client = clients.CLIENTS[name]
    if cell["warm_up"]:
        await client(replace(work, n=cell["warm_up"]))
        gc.collect()
    took = await client(work)
    return {**vars(took), "rss_mb": _rss_mb()}


async def _memory(cell: dict[str, Any]) -> dict[str, Any]:
    """A long queue over a backend that answers at once: what stays in memory."""
    from inmemory import Instant

    from pizza._engine.scheduler import Scheduler
    from pizza.completion import Request
    from pizza.prompt import Message, Prompt

    def requests() -> Iterator[Request]:
        for index in range(cell["n"]):
            yield Request(prompt=Prompt(messages=(Message(text=f"#{index}"),)))

    done = first = 0.0
    start = time.monotonic()
    async with Scheduler(Instant()) as scheduler, scheduler.stream(requests()) as outcomes:
        async for _ in outcomes:
            first = first or time.monotonic() - start
            done += 1
    return {"ok": done, "first_s": first, "rss_mb": _rss_mb()}


async def _gather(cell: dict[str, Any]) -> dict[str, Any]:
    """The same with a task per request behind a semaphore."""
    from inmemory import Instant

    from pizza.completion import Request
    from pizza.prompt import Message, Prompt

    backend, slots = Instant(), asyncio.Semaphore(50)

    async def one(index: int) -> object:
        request = Request(prompt=Prompt(messages=(Message(text=f"#{index}"),)))
        async with slots:
            return await backend.answer(request)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(index)) for index in range(cell["n"])]
    return {"ok": len(tasks), "rss_mb": _rss_mb()}


async def _journal(cell: dict[str, Any]) -> dict[str, Any]:
    """Look up (a miss), encode, store and commit, at the concurrency of a run."""
    import clients

    from pizza._engine import codec
    from pizza.caches.sqlite import SqliteCache

    work = clients.Work(port=cell["port"], n=1)
    async with clients.pizza_scheduler(work) as scheduler:
        answer = await scheduler.submit(next(clients.pizza_requests(work)))
    numbers = iter(range(cell["n"]))
    with tempfile.TemporaryDirectory() as folder:
        cache = SqliteCache(Path(folder) / "answers.sqlite")

        async def worker() -> None:
            for number in numbers:
                key = hashlib.sha256(str(number).encode()).hexdigest()
                await cache.get(key)
                await cache.put(key, codec.encode(answer.completion))

        cpu = time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(cell["concurrency"]):
                group.create_task(worker())
        cpu = time.process_time() - cpu
        await cache.aclose()
        size = _folder_bytes(folder)
    return {"cpu_ms": cpu / cell["n"] * 1e3, "kb": size / cell["n"] / 1024}


def _folder_bytes(folder: str) -> int:
    return sum(file.stat().st_size for file in Path(folder).iterdir())


async def _import(cell: dict[str, Any]) -> dict[str, Any]:
    """The processor time of an import in a fresh interpreter, the best of several."""
    code = (
        "import time; t = time.process_time(); import {0}; t = time.process_time() - t; "
        "import sys; print(t, *[m for m in ('numpy', 'openai', 'torch') if m in sys.modules])"
    )
    best, seen = 1e9, ""
    for _ in range(cell["n"]):
        command = [sys.executable, "-c", code.format(cell["extra"]["module"])]
        took, *modules = subprocess.run(  # noqa: ASYNC221 - nothing else runs on this loop
            command, capture_output=True, text=True, check=True
        ).stdout.split()
        best, seen = min(best, float(took)), " ".join(modules)
    return {"cpu_ms": best * 1e3, "modules": seen}


_INSIDE = {"memory": _memory, "gather": _gather, "journal": _journal, "import": _import}


def _rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
