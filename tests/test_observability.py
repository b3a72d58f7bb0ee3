# SPDX-License-Identifier: Apache-2.0
"""Log records of real runs: ids that meet those of cache and server, and no word of a prompt."""

import asyncio
import itertools
import json
import logging
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from support.server import served_model

import pizza
from pizza import bulk

PROMPT = "Quagmire zeppelins outnumber xylophones. How many zeppelins?"
OTHER = "Kumquats bewilder ostriches. How many kumquats?"
SECRET_WORDS = re.compile("(?i)quagmire|zeppelin|outnumber|xylophone|kumquat|bewilder|ostrich")
PATIENT = pizza.RetryPolicy(attempts=9, wait_initial_s=0.001, wait_max_s=0.01)
KEY = "sk-observed"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """Nobody has asked for content."""
    monkeypatch.delenv("PIZZA_LOG_CONTENT", raising=False)


class Heard(logging.Handler):
    """Keeps every record, and every record as text."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))
        self.records = []
        self.lines = []

    def emit(self, record):
        self.records.append(record)
        fields = {k: v for k, v in vars(record).items() if k.startswith("pizza_")}
        self.lines.append(f"{self.format(record)} {fields}")

    def of(self, event):
        return [r for r in self.records if getattr(r, "pizza_event", None) == event]

    @property
    def text(self):
        return "\n".join(self.lines)


@pytest.fixture
def heard():
    """Everything that is logged under ``pizza``."""
    handler, logger = Heard(), logging.getLogger("pizza")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@asynccontextmanager
async def passed_on(base_url, refused=()):
    """A server that passes requests on and notes the ids of the answers; yields URL and ids.

    Args:
        base_url: Of the server that answers.
        refused: Numbers of requests that it answers itself, with 429.
    """
    ids = []
    arrivals = itertools.count()

    async def pass_on(request):
        body = await request.read()
        if next(arrivals) in refused:
            ids.append(f"req_{len(ids):032x}")
            return web.json_response(
                {"error": {"message": f"Too many: {body.decode()[:200]}", "type": "requests"}},
                status=429,
                headers={"x-request-id": ids[-1], "retry-after-ms": "5"},
            )
        url = base_url.removesuffix("/v1") + request.path
        asked = {"authorization": request.headers["authorization"]}
        asked["content-type"] = "application/json"
        async with client.request(request.method, url, data=body, headers=asked) as answer:
            ids.append(answer.headers["x-request-id"])
            kept = {k: v for k, v in answer.headers.items() if k.lower().startswith(("x-", "retr"))}
            return web.Response(
                status=answer.status,
                body=await answer.read(),
                headers=kept,
                content_type="application/json",
            )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", pass_on)
    runner = web.AppRunner(app)
    async with aiohttp.ClientSession() as client:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            yield f"http://127.0.0.1:{port}/v1", ids
        finally:
            await runner.cleanup()


def options(server, **more):
    return {
        "model": f"openai:{server.model}",
        "base_url": server.base_url,
        "api_key": KEY,
        "retry": PATIENT,
        **more,
    }


SHORT = {"generation": pizza.Generation(max_tokens=4), "evidence": "complete"}


async def test_ids_are_those_of_the_cache_and_of_the_server(heard, tmp_path):
    cache = tmp_path / "answers.sqlite"
    with served_model(faults="500=0.2,seed=1") as server:
        async with passed_on(server.base_url, refused=(2,)) as (url, server_ids):
            given = options(server, base_url=url, cache=cache)
            async with pizza.Session(**given) as session:
                await session.attribute(PROMPT, **SHORT)
                calls = session.statistics.calls
            async with pizza.Session(**given) as session:
                again = await session.attribute(PROMPT, **SHORT)
    assert (again.calls, again.cache_hits) == (0, len(heard.of("answered")))
    ended = [*heard.of("answered"), *heard.of("error"), *heard.of("refused")]
    assert len(ended) == len(heard.of("sent")) == calls == len(server_ids)
    assert sorted(r.pizza_server_request for r in ended) == sorted(server_ids)
    assert heard.of("error")
    assert {r.pizza_status for r in heard.of("error")} == {500}
    assert [r.pizza_retry_after_s for r in heard.of("refused")] == [0.005]
    assert {r.pizza_status for r in heard.of("refused")} == {429}
    with sqlite3.connect(cache) as connection:
        keys = [key for (key,) in connection.execute("SELECT lower(hex(key)) FROM answers")]
    connection.close()
    # Keys are stored as texts or as bytes.
    known = {bytes.fromhex(key).decode() if len(key) == 128 else key for key in keys}
    asked = {r.pizza_request for r in heard.of("answered")}
    assert asked == {key[:12] for key in known}
    # The same requests have the same ids in the second session.
    assert {r.pizza_request for r in heard.of("cached")} == asked
    assert {r.pizza_request for r in heard.of("stored")} == asked
    # An attempt that was made again has the next number of the same request.
    for record in heard.of("retry"):
        name = record.pizza_request
        numbers = [r.pizza_attempt for r in heard.of("sent") if r.pizza_request == name]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) > record.pizza_attempt


async def test_a_failed_request_names_the_servers_id_and_its_status(heard):
    with served_model(api_key="sk-right") as server:
        async with pizza.Session(**options(server, api_key="sk-wrong-key")) as session:
            with pytest.raises(pizza.errors.AuthError) as caught:
                await session.attribute(PROMPT, **SHORT)
    assert caught.value.status == 401
    assert re.fullmatch("req_[0-9a-f]{32}", caught.value.request_id)
    assert f"HTTP 401 (request {caught.value.request_id}): " in str(caught.value)
    (failed,) = heard.of("error")
    assert failed.pizza_server_request == caught.value.request_id
    assert [r.pizza_error for r in heard.of("attribution-failed")] == ["AuthError"]
    assert "sk-wrong" not in heard.text


async def run_with_trouble(tmp_path, server, **more):
    """A run over good and bad prompts; returns the lines of its events."""
    rows = [{"id": "quiet", "prompt": PROMPT}, {"id": "other", "prompt": OTHER}]
    rows.append({"id": "long", "prompt": f"{OTHER} " * 400})
    summary = await bulk.run(rows, tmp_path / "run", options=SHORT, **options(server, **more))
    assert (summary.done, summary.failed) == (2, 1)
    return (tmp_path / "run" / "events.jsonl").read_text()


async def test_no_word_of_a_prompt_is_told(heard, tmp_path):
    pytest.importorskip("pyarrow", reason="installed with the extra 'bulk'")
    with served_model(faults="500=0.1,malformed=0.1,truncate=0.1,seed=4") as server:
        async with passed_on(server.base_url, refused=(3,)) as (url, _):
            events = await run_with_trouble(tmp_path, server, base_url=url)
    kinds = Counter(getattr(r, "pizza_event", "other") for r in heard.records)
    assert {"sent", "answered", "error", "refused", "retry", "failed", "stored"} <= kinds.keys()
    assert {"run-started", "run-ended", "session-opened", "session-closed"} <= kinds.keys()
    assert {r.pizza_error for r in heard.of("error")} > {"MalformedResponseError"}
    assert not SECRET_WORDS.search(heard.text)
    assert not SECRET_WORDS.search(events)
    assert KEY not in heard.text
    assert {r.pizza_row for r in heard.of("sent")} == {"quiet", "other", "long"}
    assert {r.pizza_row for r in heard.of("attribution-failed")} == {"long"}


async def test_prompts_and_answers_are_told_to_who_asks(heard, tmp_path, monkeypatch, model_server):
    monkeypatch.setenv("PIZZA_LOG_CONTENT", "1")
    async with pizza.Session(**options(model_server)) as session:
        made = await session.attribute(PROMPT, **SHORT)
    told = [r.pizza_prompt for r in heard.of("sent")]
    assert [{"role": "user", "content": PROMPT}] in told
    assert made.output.text in [r.pizza_answer for r in heard.of("answered")]
    assert PROMPT in heard.text
    assert KEY not in heard.text


async def test_attributions_at_the_same_time_are_told_apart(heard, model_server):
    async with pizza.Session(**options(model_server)) as session, asyncio.TaskGroup() as group:
        tasks = [group.create_task(session.attribute(p, **SHORT)) for p in (PROMPT, OTHER)]
    sent = Counter(r.pizza_attribution for r in heard.of("sent"))
    assert sorted(sent.values()) == sorted(task.result().calls for task in tasks)
    assert set(sent) == {r.pizza_attribution for r in heard.of("attribution-ended")}
    assert {r.pizza_attribution for r in heard.of("stored")} == set(sent)
    by_request = {}
    for record in heard.of("sent"):
        by_request.setdefault(record.pizza_request, set()).add(record.pizza_attribution)
    assert all(len(names) == 1 for names in by_request.values())
    assert all(f"[attribution {r.pizza_attribution}]" in r.getMessage() for r in heard.of("sent"))


async def test_an_estimate_tells_of_no_request(heard, tmp_path, model_server):
    pytest.importorskip("pyarrow", reason="installed with the extra 'bulk'")
    (plan,) = await bulk.estimate([{"prompt": PROMPT}], options=SHORT, **options(model_server))
    assert plan.requests > 1
    assert {getattr(r, "pizza_event", None) for r in heard.records} <= {
        "session-opened",
        "session-closed",
    }


async def test_whoever_listens_at_info_hears_of_beginning_and_end(heard, tmp_path, model_server):
    logging.getLogger("pizza").setLevel(logging.INFO)
    async with pizza.Session(**options(model_server)) as session:
        made = await session.attribute(PROMPT, **SHORT)
    (closed,) = heard.of("session-closed")
    assert (closed.pizza_calls, closed.pizza_failures) == (made.calls, 0)
    assert closed.pizza_input_tokens == made.usage.prompt_tokens
    assert [r.pizza_event for r in heard.records] == ["session-opened", "session-closed"]
    assert closed.pizza_session == heard.of("session-opened")[0].pizza_session


def test_nothing_is_configured_and_nothing_imported_where_nobody_listens():
    program = (
        "import asyncio, logging, sys, pizza\n"
        "async def main():\n"
        "    async with pizza.Session('embedded') as session:\n"
        "        await session.attribute('One two.', generation=pizza.Generation(max_tokens=2))\n"
        "asyncio.run(main())\n"
        "logger = logging.getLogger('pizza')\n"
        "print(logger.handlers, logger.level, 'opentelemetry' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[] 0 False\n"
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["log.txt", "log.jsonl"])
def test_the_command_line_writes_a_log_file_and_nothing_of_it_on_the_screen(name, tmp_path):
    path = tmp_path / name
    command = [
        *(sys.executable, "-m", "pizza.cli", "--log-file", str(path), "--log-level", "debug"),
        *("attribute", PROMPT, "--no-cache", "--max-tokens", "2", "--json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    made = json.loads(done.stdout)
    assert "request" not in done.stderr
    lines = path.read_text().splitlines()
    assert not SECRET_WORDS.search("\n".join(lines))
    if name.endswith(".jsonl"):
        found = [json.loads(line) for line in lines]
        assert sum(r.get("pizza_event") == "answered" for r in found) == made["calls"]
    else:
        form = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO) pizza\.\w+: .+")
        assert all(form.fullmatch(line) for line in lines)
        assert sum(" answered in " in line for line in lines) == made["calls"]


def test_a_log_file_that_cannot_be_written_is_refused_before_anything_happens(tmp_path):
    command = [
        *(sys.executable, "-m", "pizza.cli", "--log-file", str(tmp_path / "no" / "log.txt")),
        *("attribute", PROMPT, "--no-cache"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot write the log file" in done.stderr
