# SPDX-License-Identifier: Apache-2.0
"""The scheduler, the openai plugin and real connections."""

import asyncio
import contextlib
import threading

import loopback
import pytest
from pizza_openai.backend import OpenAIBackend
from rules import Bucket, Rule

from pizza._engine.scheduler import Scheduler
from pizza.completion import Generation, Request
from pizza.errors import AuthError
from pizza.limits import Limits, RetryPolicy
from pizza.prompt import Message, Prompt
from pizza.specs import BackendSettings

GENERATION = Generation(max_tokens=16)
QUICK = RetryPolicy(wait_initial_s=0.01, wait_max_s=0.05, attempt_timeout_s=20.0)


def requests(n):
    return [
        Request(prompt=Prompt(messages=(Message(text=f"#{i} "),)), generation=GENERATION)
        for i in range(n)
    ]


@contextlib.asynccontextmanager
async def opened(api_key="sk-test", limits=None, **settings):
    settings.setdefault("body", loopback.body("small"))
    server, port, stats = await loopback.serve(loopback.Settings(**settings))
    backend = OpenAIBackend(
        BackendSettings(model="m", base_url=f"http://127.0.0.1:{port}/v1", api_key=api_key)
    )
    async with server:
        try:
            async with Scheduler(backend, limits=limits, retry=QUICK) as scheduler:
                yield scheduler, stats
        finally:
            await backend.aclose()
        for _ in range(200):
            if stats.connections:
                await asyncio.sleep(0.01)
        assert stats.connections == 0


async def test_a_wrong_key_is_one_request():
    async with opened(api_key="sk-wrong", key="sk-right", latency_s=0.05) as (scheduler, stats):
        results = await scheduler.run(requests(200))
        assert {type(result) for result in results} == {AuthError}
        assert stats.requests == stats.unauthorized == 1


async def test_everything_is_answered_and_nothing_paid_twice_whatever_goes_wrong():
    faults = {"error": 0.05, "drop": 0.05, "slow": 0.02, "malformed": 0.03, "truncated": 0.03}
    async with opened(faults=faults, slow_s=0.5, latency_s=0.002) as (scheduler, stats):
        results = await scheduler.run(requests(400))
    assert not any(isinstance(result, Exception) for result in results)
    assert stats.faults > 20
    assert sum(stats.delivered.values()) == 400
    assert max(stats.delivered.values()) == 1


async def test_real_refusals_are_waited_out():
    rule = Rule(Bucket(6000, 10))
    async with opened(rule=rule, latency_s=0.01) as (scheduler, stats):
        results = await scheduler.run(requests(300))
    assert not any(isinstance(result, Exception) for result in results)
    # A bucket of a tenth of a second: some on a busy machine, and no storm, which is thousands.
    assert stats.refused <= 100
    assert scheduler.statistics.rate_limited == stats.refused


@pytest.mark.parametrize("concurrency", [1, 7])
async def test_no_more_are_in_flight_than_allowed(concurrency):
    limits = Limits(max_concurrency=concurrency)
    async with opened(limits=limits, latency_s=0.005) as (scheduler, stats):
        await scheduler.run(requests(60))
    assert stats.max_in_flight == concurrency


async def test_a_caller_cancelled_in_the_middle_leaves_nothing():
    before, threads = asyncio.all_tasks(), threading.active_count()
    async with opened(latency_s=0.2) as (scheduler, stats):
        await scheduler.run(requests(1))
        tasks = asyncio.all_tasks()
        mine = asyncio.create_task(scheduler.run(requests(100)[1:]))
        other = asyncio.create_task(scheduler.submit(requests(200)[150]))
        while stats.in_flight < 20:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.005)
        mine.cancel()
        with pytest.raises(asyncio.CancelledError):
            await mine
        assert (await other).attempts == 1
        assert asyncio.all_tasks() == tasks
        assert scheduler.statistics.in_flight == 0
    assert asyncio.all_tasks() == before
    assert threading.active_count() == threads
