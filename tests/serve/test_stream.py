# SPDX-License-Identifier: Apache-2.0
"""One client: what it is told, what it is refused, and what ends with it."""

import aiohttp
import pytest

pytest.importorskip("fastapi", reason="pip install --group serve")
pytest.importorskip("uvicorn", reason="pip install --group serve")

from support.server import served_model
from support.serving import deserted, events, served

import pizza

PROMPT = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"


@pytest.fixture
async def client():
    async with aiohttp.ClientSession() as session:
        yield session


async def told(answer):
    async with answer as opened:
        return [event async for event in events(opened)]


def names(stream):
    return [name for name, _ in stream]


@pytest.mark.parametrize("where", ["embedded", "http"])
async def test_the_stream_ends_with_what_attribute_returns(client, model_server, where):
    options = {}
    model = "embedded"
    if where == "http":
        model = f"openai:{model_server.model}"
        options = {"base_url": model_server.base_url, "api_key": "none"}
    async with pizza.Session(model, **options) as session:
        direct = await session.attribute(PROMPT)
    with served(model, {"step_s": 0.0}, **options) as app:
        stream = await told(app.ask(client, PROMPT))
        health = await app.idle(client)
    assert names(stream)[0] == "units"
    assert names(stream)[-1] == "attribution"
    assert names(stream).index("output") < names(stream).index("attribution")
    units = stream[0][1]["units"]
    assert units == [[unit.start, unit.end] for unit in direct.units]
    last = stream[-1][1]
    assert last["scores"] == pytest.approx(direct.unit_scores.tolist(), abs=1e-5)
    assert last["output"]["text"] == direct.output.text
    assert last["calls"] == direct.calls == health["statistics"]["calls"]
    assert health["active"] == 0
    assert health["status"] == "ok"


async def test_scores_come_one_after_the_other_and_stay(client):
    with (
        served_model(latency="0.02") as model,
        served(
            f"openai:{model.model}",
            {"step_s": 0.0},
            base_url=model.base_url,
            api_key="none",
            limits=pizza.Limits(max_concurrency=1),
        ) as app,
    ):
        stream = await told(app.ask(client, PROMPT))
    scores = [data["scores"] for name, data in stream if name == "scores"]
    known = [sum(score is not None for score in row) for row in scores]
    assert known == sorted(known)
    assert known[0] == 0
    assert len(set(known)) > 5
    # Leave-one-out: what was shown first is what the result says.
    final = stream[-1][1]["scores"]
    for row in scores:
        assert all(score in (None, final[i]) for i, score in enumerate(row))


async def test_auto_with_a_budget_is_watched_too(client):
    with served(rules={"step_s": 0.0}) as app:
        stream = await told(app.ask(client, PROMPT, budget=60))
    assert stream[-1][0] == "attribution"
    assert stream[-1][1]["method"] == "auto"
    assert stream[-1][1]["calls"] <= 60
    assert names(stream).count("scores") > 3


async def test_spans_are_code_points_and_markup_is_only_text(client):
    prompt = "😀 <script>alert(1)</script> & Ana has 3 👩‍👩‍👧 apples"
    with served() as app:
        stream = await told(app.ask(client, prompt))
    words = [prompt[start:end] for start, end in stream[0][1]["units"]]
    assert "apples" in "".join(words)
    assert words == [unit.text for unit in (await attributed(prompt)).units]


async def attributed(prompt):
    async with pizza.Session("embedded") as session:
        return await session.attribute(prompt)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"prompt": "  \n "}, 422, "empty"),
        ({"prompt": "x" * 201}, 422, "200"),
        ({"prompt": "x " * 5000}, 413, ""),
        ({"prompt": "a b c", "budget": 0}, 422, "greater than or equal to 1"),
        ({"prompt": "a b c", "budget": 41}, 422, "40"),
        ({"prompt": "a b c", "budget": "many"}, 422, "integer"),
        ({"prompt": "a b c", "units": "galaxy"}, 422, "word"),
        ({"prompt": "a b c", "method": "shapley"}, 422, "method"),
        ({"prompt": "w " * 50}, 422, "sentence"),
        ({"prompt": "a \ud800 b"}, 422, "surrogate"),
        ({"prompt": 3}, 422, "string"),
        ({}, 422, "prompt"),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_what_cannot_be_done_is_a_clear_4xx_and_asks_the_model_nothing(
    client, body, status, said
):
    with served(rules={"max_characters": 200, "max_calls": 40}) as app:
        async with client.post(f"{app.url}/attribute", json=body) as answer:
            assert answer.status == status
            assert said in await answer.text()
        health = await app.idle(client)
    assert health["statistics"]["calls"] == 0
    assert health["active"] == 0


async def test_a_body_that_is_not_json_is_refused(client):
    with served() as app:
        for data in (b"{", b"\xff\xfe", b"[1]", b""):
            headers = {"content-type": "application/json"}
            async with client.post(f"{app.url}/attribute", data=data, headers=headers) as answer:
                assert answer.status in (400, 422)
                assert (await answer.json())["error" if answer.status == 422 else "detail"]


async def test_a_failure_on_the_way_is_the_last_event_and_says_what_to_do(client):
    with (
        served_model(faults="500=1.0,seed=1") as model,
        served(
            f"openai:{model.model}",
            base_url=model.base_url,
            api_key="none",
            retry=pizza.RetryPolicy(attempts=1),
        ) as app,
    ):
        stream = await told(app.ask(client, PROMPT))
        health = await app.idle(client)
    name, data = stream[-1]
    assert name == "error"
    assert data["type"] == "RetriesExhaustedError"
    assert data["try_again"] is True
    assert "500" in data["message"]
    assert health["active"] == 0


async def test_a_wrong_key_is_an_error_event_without_the_key(client):
    with (
        served_model(api_key="right") as model,
        served(f"openai:{model.model}", base_url=model.base_url, api_key="wrong-key") as app,
    ):
        stream = await told(app.ask(client, PROMPT))
    name, data = stream[-1]
    assert (name, data["type"], data["try_again"]) == ("error", "AuthError", False)
    assert "wrong-key" not in str(stream)


async def test_a_request_that_takes_too_long_is_ended(client):
    with (
        served_model(latency="30") as model,
        served(
            f"openai:{model.model}",
            {"max_seconds": 0.2},
            base_url=model.base_url,
            api_key="none",
        ) as app,
    ):
        stream = await told(app.ask(client, PROMPT))
        health = await app.idle(client)
    assert stream[-1][0] == "error"
    assert stream[-1][1]["type"] == "TimeoutError"
    assert health["active"] == health["statistics"]["in_flight"] == 0


async def test_a_silent_stream_beats(client):
    with (
        served_model(latency="0.3") as model,
        served(
            f"openai:{model.model}",
            {"heartbeat_s": 0.01},
            base_url=model.base_url,
            api_key="none",
        ) as app,
    ):
        async with app.ask(client, "Ana has 3 apples") as answer:
            body = await answer.text()
    assert body.count("\n:\n") > 3
    assert body.index("\n:\n") < body.index("event: attribution")


async def test_who_comes_when_it_is_full_is_told_to_come_back(client):
    with (
        served_model(latency="30") as model,
        served(
            f"openai:{model.model}", {"max_active": 1}, base_url=model.base_url, api_key="none"
        ) as app,
    ):
        async with app.ask(client, PROMPT) as first:
            assert (await anext(events(first)))[0] == "units"
            async with app.ask(client, PROMPT) as second:
                assert second.status == 429
                assert int(second.headers["retry-after"]) > 0
                assert "1 attributions" in (await second.json())["error"]["message"]
            assert (await app.health(client))["active"] == 1
            first.close()
        assert (await app.idle(client))["active"] == 0


async def test_hanging_up_ends_the_work_and_nothing_else(client):
    """Given a client that leaves after the first score -> its requests stop, the next one's run."""
    words = " ".join(f"word{i}" for i in range(150))
    with (
        served_model(latency="0.05") as model,
        served(
            f"openai:{model.model}",
            base_url=model.base_url,
            api_key="none",
            limits=pizza.Limits(max_concurrency=2),
        ) as app,
    ):
        async with app.ask(client, words) as leaving:
            async for name, data in events(leaving):
                if name == "scores" and data["done"]:
                    break
            leaving.close()
        health = await app.idle(client, model)
        sent = sum(model.stats["requests"].values())
        assert health["active"] == health["statistics"]["in_flight"] == 0
        # It would have taken 152.
        assert sent < 40
        assert model.stats["in_flight"] == 0
        stream = await told(app.ask(client, "Ana has 3 red apples"))
        assert stream[-1][0] == "attribution"
        # What the second one took: nothing of the first one's came back to life.
        calls = (await app.idle(client))["statistics"]["calls"]
        assert calls == health["statistics"]["calls"] + stream[-1][1]["calls"]


async def test_a_server_that_stops_does_not_wait_for_a_slow_model(client):
    with served_model(latency="60") as model:
        with served(f"openai:{model.model}", base_url=model.base_url, api_key="none") as app:
            answer = await app.ask(client, PROMPT)
            assert (await anext(events(answer)))[0] == "units"
        # The session was closed in the server's loop, and with it everything that it had sent.
        answer.close()
        await deserted(client, model)
        assert model.stats["in_flight"] == 0


@pytest.mark.parametrize("error", [OSError, ConnectionResetError], ids=lambda e: e.__name__)
async def test_a_server_that_says_that_nobody_listens_ends_the_work_as_well(error):
    """Given a server of ASGI 2.4, where sending fails -> the answer ends, and counts as ended."""
    import asyncio

    from serve.answer import Answer
    from serve.rules import Doorman, Rules

    async def receive():
        return await asyncio.Event().wait()

    async def send(_):
        raise error("the client has gone")

    doorman = Doorman(5)
    async with pizza.Session("embedded") as session:
        answer = Answer(session, Rules(), doorman, PROMPT, {})
        await answer({"type": "http"}, receive, send)
        assert doorman.active == 0
        assert session.statistics.in_flight == session.statistics.queued == 0


@pytest.mark.parametrize(
    "data",
    [b'{"prompt": ' * 3000, b"[" * 40_000, b'{"prompt": "a b", "budget": ' + b"9" * 30_000 + b"}"],
    ids=["objects", "lists", "digits"],
)
async def test_hostile_json_is_refused(client, data):
    with served() as app:
        headers = {"content-type": "application/json"}
        async with client.post(f"{app.url}/attribute", data=data, headers=headers) as answer:
            assert 400 <= answer.status < 500
        assert (await app.health(client))["active"] == 0
