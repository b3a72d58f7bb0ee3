# SPDX-License-Identifier: Apache-2.0
"""Many clients at once, of whom some hang up in the middle."""

import asyncio

import aiohttp
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="pip install --group serve")
pytest.importorskip("uvicorn", reason="pip install --group serve")

from support.server import served_model
from support.serving import events, served

import pizza

CLIENTS = 50
LEAVING = 20
SLOTS = 16

NAMES = ("Ana", "Bob", "Cem", "Dana", "Eva")
THINGS = ("apples", "pears", "plums", "nuts", "eggs", "cups", "hats", "pens", "maps", "keys")


def prompt(number):
    """A prompt of its own for every client."""
    who, what = NAMES[number % 5], THINGS[number // 5]
    return f"{who} has {number % 7 + 2} red {what}. How many {what} does {who} have?"


async def stay(app, client, number):
    """The whole stream; its last event."""
    async with app.ask(client, prompt(number)) as answer:
        return [event async for event in events(answer)][-1]


async def leave(app, client, number, after):
    """Hang up when so many coalitions are known."""
    async with app.ask(client, prompt(number)) as answer:
        async for name, data in events(answer):
            assert name != "attribution", "it was over before anybody could leave"
            if name == "scores" and data["done"] >= after:
                answer.close()
                return


def leaves(number):
    # Spread over the others, so that those who stay are before and behind those who leave.
    return number % 5 in (1, 3)


async def crowd(app, after, model=None):
    """Everybody at once; the last events of those who stay, and the application's health then."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as client:
        async with asyncio.TaskGroup() as group:
            tasks = {
                number: group.create_task(
                    leave(app, client, number, after)
                    if leaves(number)
                    else stay(app, client, number)
                )
                for number in range(CLIENTS)
            }
        results = {n: task.result() for n, task in tasks.items() if not leaves(n)}
        return results, await app.idle(client, model)


async def expected(session, numbers):
    return {n: (await session.attribute(prompt(n))).unit_scores for n in numbers}


async def test_those_who_stay_get_right_results_and_nothing_is_left_running():
    with (
        served_model(latency="0.05") as model,
        served(
            f"openai:{model.model}",
            base_url=model.base_url,
            api_key="none",
            limits=pizza.Limits(max_concurrency=SLOTS),
        ) as app,
    ):
        results, health = await crowd(app, after=1, model=model)
        sent = sum(model.stats["requests"].values())
        assert sum(map(leaves, range(CLIENTS))) == LEAVING
        assert {name for name, _ in results.values()} == {"attribution"}
        statistics = health["statistics"]
        assert (health["active"], statistics["in_flight"], statistics["queued"]) == (0, 0, 0)
        assert model.stats["in_flight"] == 0
        # The requests of who left were not sent to the end.
        everything = sum(2 + len(prompt(n).split()) for n in range(CLIENTS))
        assert sent < everything
        async with pizza.Session(
            f"openai:{model.model}", base_url=model.base_url, api_key="none"
        ) as session:
            right = await expected(session, results)
    for number, (_, data) in results.items():
        assert np.allclose(data["scores"], right[number], atol=1e-4), prompt(number)


async def test_the_same_with_a_model_in_the_process():
    with served() as app:
        # This model answers a whole round at once: they leave while the output is asked for.
        results, health = await crowd(app, after=0)
    assert len(results) == CLIENTS - LEAVING
    assert health["active"] == health["statistics"]["in_flight"] == 0
    async with pizza.Session("embedded") as session:
        right = await expected(session, results)
    for number, (name, data) in results.items():
        assert name == "attribution"
        assert np.allclose(data["scores"], right[number], atol=1e-5), prompt(number)


async def test_a_short_question_does_not_wait_for_a_long_one():
    """Given a long question under way -> a short one that comes later is answered first."""
    long = " ".join(prompt(n) for n in range(6))
    with (
        served_model(latency="0.01") as model,
        served(
            f"openai:{model.model}",
            base_url=model.base_url,
            api_key="none",
            limits=pizza.Limits(max_concurrency=4),
        ) as app,
    ):
        async with aiohttp.ClientSession() as client, app.ask(client, long) as answer:
            stream = events(answer)
            async for name, data in stream:
                if name == "scores" and data["done"]:
                    break
            assert (await stay(app, client, 0))[0] == "attribution"
            assert (await app.health(client))["active"] == 1
            assert [name async for name, _ in stream][-1] == "attribution"


async def test_equal_questions_are_paid_for_once():
    with served_model(latency="0.02") as model:
        options = {"base_url": model.base_url, "api_key": "none"}
        async with pizza.Session(f"openai:{model.model}", **options) as session:
            alone = await session.attribute(prompt(0))
        before = sum(model.stats["requests"].values())
        with served(f"openai:{model.model}", **options) as app:
            async with aiohttp.ClientSession() as client, asyncio.TaskGroup() as group:
                tasks = [group.create_task(stay(app, client, 0)) for _ in range(10)]
        assert len({str(task.result()[1]["scores"]) for task in tasks}) == 1
        assert sum(model.stats["requests"].values()) - before == before == alone.calls
