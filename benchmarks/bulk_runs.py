# SPDX-License-Identifier: Apache-2.0
"""What is measured of pizza: one run in this process, its figures as one line of JSON.

``python bulk_runs.py '[N, FOLDER, PORT, {...}]'``; port 0 is a model in this process that answers
at once. Started by `bulk`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from bulk_prompts import prompt
from bulk_stand import Stand
from bulk_used import used

_OPTIONS: dict[str, Any] = {"evidence": "complete"}


class Rows:
    """So many rows, made as they are read."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(self.n):
            yield {"id": number, "prompt": prompt(number), "topic": "none"}


def instant(tokens: int = 16) -> Any:
    """A backend that has its answers ready, with 20 alternatives per token: all but the HTTP call.

    Reading an answer is the backend's work and not among what is measured.
    """
    import numpy as np

    from pizza.abc import Backend
    from pizza.capability import Capability
    from pizza.completion import Completion, Reply, Usage

    rng = np.random.default_rng(0)
    words = tuple(f" tok{i}" for i in range(tokens))
    shared = tuple(tuple(f" alt{i}x{j}" for j in range(20)) for i in range(tokens))

    def reply() -> Reply:
        values = -np.sort(rng.exponential(5.0, (tokens, 20)).astype("f4"), axis=1).astype(float)
        return Reply(
            completion=Completion(
                text="".join(words),
                tokens=words,
                logprobs=values[:, 0],
                alternative_tokens=shared,
                alternative_logprobs=values,
                finish_reason="length",
                usage=Usage(prompt_tokens=50, completion_tokens=tokens),
            )
        )

    ready = itertools.cycle([reply() for _ in range(64)])

    class Instant(Backend):
        name = "instant"
        identity = "instant"
        capabilities = frozenset({Capability.COMPLETE, Capability.LOGPROBS})

        async def answer(self, request: Any) -> Reply:
            return next(ready)

    return Instant()


def model(port: int) -> tuple[Any, dict[str, Any]]:
    """The model behind a port, and what a session needs to reach it."""
    if not port:
        return instant(), {}
    return "openai:m", {"base_url": f"http://127.0.0.1:{port}/v1", "api_key": "sk-x"}


async def bare(n: int, folder: str, port: int, options: dict[str, Any]) -> dict[str, Any]:
    """The same prompts in a session that keeps nothing on disk."""
    import pizza

    backend, more = model(port)
    limits = pizza.Limits(max_concurrency=100)
    async with (
        pizza.Session(backend, limits=limits, **more) as session,
        session.attribute_many(
            (row["prompt"] for row in Rows(n)),
            concurrency=16,
            generation=pizza.Generation(max_tokens=16),
            **_OPTIONS,
        ) as outcomes,
    ):
        async for outcome in outcomes:
            assert outcome.attribution is not None, outcome.error
    return {"spent": session.statistics.calls, **used()}


async def bulk(n: int, folder: str, port: int, options: dict[str, Any]) -> dict[str, Any]:
    """A run over n prompts.

    Options: ``rpm``, ``burst_s``, ``concurrency``, ``cap`` (calls), ``workers``, ``engine``.
    """
    import pizza
    from pizza import bulk
    from pizza.events import Pace

    paces: list[Pace] = []

    def listen(event: Any) -> None:
        if isinstance(event, Pace):
            paces.append(event)

    backend, more = model(port)
    wall = time.perf_counter()
    summary = await bulk.run(
        Rows(n),
        folder,
        model=backend,
        options={**_OPTIONS, "generation": pizza.Generation(max_tokens=16)},
        limits=pizza.Limits(
            requests_per_minute=options.get("rpm"),
            max_concurrency=options.get("concurrency", 100),
            burst_s=options.get("burst_s"),
        ),
        budget=pizza.Budget(max_calls=options.get("cap")),
        workers=options.get("workers", 16),
        on_event=listen,
        engine=options.get("engine"),
        **more,
    )
    # The last requests of a run cannot keep the rate: nothing is left to be sent beside them.
    steady = [p for p in paces if p.at - paces[0].at >= 10 and p.done + 20 < p.total]
    rate = None
    if len(steady) > 1:
        rate = (steady[-1].calls - steady[0].calls) / (steady[-1].at - steady[0].at)
    return {
        "reason": str(summary.reason),
        "done": summary.done,
        "ok": summary.done * (1 + len(prompt(0).split())),
        "spent": summary.spent.calls,
        "wall_s": time.perf_counter() - wall,
        "rate": rate,
        **used(),
    }


async def nodes(n: int, folder: str, port: int, options: dict[str, Any]) -> dict[str, Any]:
    """A run over three Ray nodes, one of which is killed after ``kill_at`` requests."""
    from pizza_ray import RayEngine
    from ray_nodes import nodes as started

    kill_at = options.pop("kill_at", None)
    with started(3) as cluster:
        engine = RayEngine(cluster.address, workers=3)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(bulk(n, folder, port, {**options, "engine": engine}))
            if kill_at:
                stand = Stand(port)
                while stand.stats()["requests"] < kill_at:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.05)
                cluster.kill(1)
        return running.result()


async def neighbours(n: int, folder: str, port: int, options: dict[str, Any]) -> dict[str, Any]:
    """Short prompts, one after another, alone and in a session that is busy with long ones."""
    import pizza

    backend, more = model(port)
    took: dict[str, list[float]] = {"alone": [], "busy": []}
    generation = pizza.Generation(max_tokens=16)
    limits = pizza.Limits(max_concurrency=options.get("concurrency", 50))
    async with pizza.Session(backend, limits=limits, **more) as session:
        given = {"generation": generation, **_OPTIONS}
        await session.attribute(prompt(10**6), **given)

        async def short(kind: str, first: int) -> None:
            for number in range(first, first + n):
                began = time.perf_counter()
                await session.attribute(prompt(number), **given)
                took[kind].append(time.perf_counter() - began)

        await short("alone", 0)
        long = (prompt(10**5 + number, words=400) for number in range(10**4))
        async with session.attribute_many(long, concurrency=16, **given):
            while session.statistics.queued == 0:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
            await short("busy", n)
    return {kind: sorted(seconds)[len(seconds) // 2] for kind, seconds in took.items()}


KINDS = {"bulk": bulk, "bare": bare, "nodes": nodes, "neighbours": neighbours}


def main() -> None:
    """Make the run that is asked for."""
    n, folder, port, options = json.loads(sys.argv[1])
    kind = KINDS[options.pop("kind", "bulk")]
    print(json.dumps(asyncio.run(kind(n, folder, port, options))))


if __name__ == "__main__":
    main()
