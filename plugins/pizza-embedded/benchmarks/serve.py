# SPDX-License-Identifier: Apache-2.0
"""What the served model sustains: requests per second, and CPU per request on the server.

Run it with ``python plugins/pizza-embedded/benchmarks/serve.py``. The client is bare aiohttp in
this process, the server a process of its own, both on this machine. CPU time is the server's own,
so it hardly depends on what else the machine does; requests per second do.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp

PROMPT = "Ana has {} red apples and Bob has {} green pears. How many pears does Bob have?"
FILLER = "The weather was mild and the market was open all day. " * 20


def body(text: str, **more: Any) -> bytes:
    """A chat request as attribution sends it: greedy, with all the log-probabilities there are."""
    request = {
        "model": "embedded",
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 16,
        "logprobs": True,
        "top_logprobs": 20,
    }
    return json.dumps({**request, **more}).encode()


def score_body(text: str) -> bytes:
    """A request that scores a given answer."""
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "5"}]
    more: dict[str, Any] = {"prompt_logprobs": 20, "continue_final_message": True}
    return body(text, messages=messages, max_tokens=1, logprobs=False, top_logprobs=None, **more)


def bodies(kind: str) -> Iterator[bytes]:
    """Endless requests of a kind."""
    for n in itertools.count():
        text = PROMPT.format(n % 997, n)
        if kind == "repeated":
            yield body(PROMPT.format(3, 5))
        elif kind == "repeated, 50 KB answers":
            yield body(PROMPT.format(3, 5), n=32)
        elif kind == "long prompts":
            yield body(FILLER + text)
        elif kind == "scoring":
            yield score_body(text)
        else:
            yield body(text)


KINDS = ("repeated", "repeated, 50 KB answers", "short prompts", "long prompts", "scoring")


async def drive(url: str, kind: str, seconds: float, concurrency: int) -> tuple[int, int]:
    """Send as many requests as are answered in a time; returns their number and bytes."""
    source = bodies(kind)
    answered = received = 0
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:
        end = time.perf_counter() + seconds

        async def work() -> None:
            nonlocal answered, received
            while time.perf_counter() < end:
                async with session.post(url + "/chat/completions", data=next(source)) as answer:
                    content = await answer.read()
                    if answer.status != 200:
                        raise SystemExit(content.decode())
                    answered += 1
                    received += len(content)

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    return answered, received


async def measure(url: str, seconds: float, concurrency: int, show: Callable[[str], None]) -> None:
    """Measure every kind of request and show a table."""
    show(f"{'requests':<26}{'req/s':>8}{'server CPU ms/request':>24}{'answer KB':>12}")
    for kind in KINDS:
        await drive(url, kind, seconds / 10, concurrency)
        before = await cpu_s(url)
        start = time.perf_counter()
        answered, received = await drive(url, kind, seconds, concurrency)
        wall = time.perf_counter() - start
        cpu_ms = 1000 * (await cpu_s(url) - before) / answered
        size = received / answered / 1000
        show(f"{kind:<26}{answered / wall:>8.0f}{cpu_ms:>24.2f}{size:>12.1f}")


async def cpu_s(url: str) -> float:
    """The server's processor time, seconds."""
    stats = url.removesuffix("/v1") + "/pizza/stats"
    async with aiohttp.ClientSession() as session, session.get(stats) as answer:
        return float((await answer.json())["cpu_s"])


def main() -> None:
    """Start a server, measure, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="per kind of request")
    parser.add_argument("--concurrency", type=int, default=50)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "pizza_embedded", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise SystemExit("the server did not start")
            asyncio.run(measure(line.split()[-1], arguments.seconds, arguments.concurrency, print))
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
