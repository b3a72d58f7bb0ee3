# SPDX-License-Identifier: Apache-2.0
"""Three workers in front of a real server: what the server counts is what was allowed."""

import asyncio
from contextlib import AsyncExitStack

import loopback
import pytest
from pizza_ray.coordinator import Coordinator
from pizza_ray.leasing import LeasedGate
from pizza_ray.shared_store import SharedStore
from pizza_ray.wire import LinkError
from rules import Bucket, Rule

import pizza
from pizza.bulk.store import Store
from pizza.completion import Generation, Request
from pizza.errors import BudgetExceededError
from pizza.limits import Budget, Limits
from pizza.prompt import Prompt

pytest.importorskip("pizza_openai")


def asked(numbers):
    return [
        Request(prompt=Prompt.of(f"What is #{i}?"), generation=Generation(max_tokens=16))
        for i in numbers
    ]


async def answers(session, numbers, at_once=40):
    """Answers or errors, in order."""
    slots = asyncio.Semaphore(at_once)

    async def one(request):
        async with slots:
            try:
                return await session.submit(request)
            except pizza.PizzaError as error:
                return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(request)) for request in asked(numbers)]
    return [task.result() for task in tasks]


class Workers:
    """So many sessions that share a coordinator, in front of a server."""

    def __init__(self, coordinator, port, n=3, incarnation=1):
        self._coordinator = coordinator
        self._port = port
        self._n = n
        self._incarnation = incarnation
        self._stack = AsyncExitStack()

    async def __aenter__(self):
        return [await self._opened(i) for i in range(self._n)]

    async def _opened(self, number):
        store = SharedStore(self._coordinator)
        self._stack.push_async_callback(store.aclose)
        gate = await self._stack.enter_async_context(
            LeasedGate(self._coordinator, worker=f"w{number}", incarnation=self._incarnation)
        )
        session = pizza.Session(
            "openai:stand-in",
            base_url=f"http://127.0.0.1:{self._port}/v1",
            api_key="a-key",
            gate=gate,
            cache=store,
        )
        return await self._stack.enter_async_context(session)

    async def __aexit__(self, *error):
        await self._stack.aclose()


async def test_the_server_never_counts_more_than_the_cap(tmp_path):
    settings = loopback.Settings(latency_s=0.02, body=loopback.body("small"))
    server, port, stats = await loopback.serve(settings)
    coordinator = Coordinator(
        Limits(max_concurrency=60),
        budget=Budget(max_calls=100),
        store=Store(tmp_path / "responses.sqlite"),
    )
    async with server:
        async with Workers(coordinator, port) as sessions, asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(answers(session, range(100 * i, 100 * i + 60)))
                for i, session in enumerate(sessions)
            ]
        found = [answer for task in tasks for answer in task.result()]
        assert sum(isinstance(answer, BudgetExceededError) for answer in found) == 80
        assert (stats.requests, len(stats.seen)) == (100, 100)
        assert stats.max_in_flight <= 60
        assert (await coordinator.standing()).spent.calls == 100
        # Another worker has the answers without paying.
        async with Workers(coordinator, port, 1, incarnation=2) as [session]:
            kept = list(stats.seen)
            assert all(isinstance(a, pizza.Completion) for a in await answers(session, kept))
        assert stats.requests == 100
    await coordinator.aclose()


async def test_the_server_sees_one_rate_and_one_worker_less(tmp_path):
    # 1,200 a minute and a second of it at once; the server enforces that with half a second to
    # spare, for the way from a client to its clock.
    rule = Rule(Bucket(1200, 30))
    settings = loopback.Settings(rule=rule, headers=False, body=loopback.body("small"))
    server, port, stats = await loopback.serve(settings)
    coordinator = Coordinator(
        Limits(requests_per_minute=1200, burst_s=1.0, max_concurrency=60),
        budget=Budget(max_calls=1000),
        store=Store(tmp_path / "responses.sqlite"),
    )
    async with server:
        async with Workers(coordinator, port) as sessions, asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(answers(session, range(100 * i, 100 * i + 30), at_once=30))
                for i, session in enumerate(sessions)
            ]
            while stats.requests < 30:
                await asyncio.wait(tasks, timeout=0.01)
            await coordinator.lost("w1")
        alive = tasks[0].result() + tasks[2].result()
        assert all(isinstance(answer, pizza.Completion) for answer in alive)
        gone = [answer for answer in tasks[1].result() if isinstance(answer, pizza.PizzaError)]
        assert gone
        assert all(isinstance(answer, LinkError) for answer in gone)
        assert stats.refused == 0
        standing = await coordinator.standing()
        assert (standing.in_flight, standing.queued) == (0, 0)
        # All that the server counted was paid for, and at most what was on its way besides.
        assert stats.requests <= standing.spent.calls <= stats.requests + 20
    await coordinator.aclose()
