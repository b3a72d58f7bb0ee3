# SPDX-License-Identifier: Apache-2.0
"""The served model when it is limited, slow, faulty or stopped."""

from __future__ import annotations

import asyncio
import io
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from pizza_embedded.faults import FaultPlan
from pizza_embedded.inference import Inference, Job
from pizza_embedded.server.batching import Batcher
from pizza_embedded.server.cache import AnswerCache, Rendered
from pizza_embedded.server.options import Latency
from support.server import ServedModel, runtime, served_model, served_process

PATH = "/chat/completions"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def body(text: str = "Hello!", **more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": text}
    return {"model": "embedded", "messages": [message], "temperature": 0, "max_tokens": 4, **more}


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something is true that another thread brings about."""
    while not condition():  # noqa: ASYNC110 - nothing in that thread could set an event of this loop
        await asyncio.sleep(0)


async def outcome(http: aiohttp.ClientSession, server: ServedModel, text: str) -> str:
    """What becomes of one request: its status, or how it failed."""
    try:
        async with http.post(server.base_url + PATH, json=body(text)) as answer:
            if answer.status != 200:
                return str(answer.status)
            try:
                await answer.json()
            except ValueError:
                return "malformed"
            return "ok"
    except aiohttp.ClientPayloadError:
        return "truncate"
    except aiohttp.ClientConnectionError:
        return "drop"


# --- keys and limits --------------------------------------------------------------------------


async def test_a_wrong_key_is_401_and_is_not_repeated() -> None:
    with served_model(api_key="right-key") as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="wrong-key") as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                await client.chat.completions.create(**body())
        assert caught.value.code == "invalid_api_key"
        assert "wrong-key" not in str(caught.value)
        assert "right-key" not in str(caught.value)
        assert server.stats["statuses"] == {"401": 1}
        async with AsyncOpenAI(base_url=server.base_url, api_key="right-key") as client:
            assert (await client.chat.completions.create(**body())).choices


async def test_requests_beyond_the_limit_are_429_with_the_real_headers() -> None:
    now = 0.0
    with served_model(rpm=120, rate_style="second", clock=lambda: now) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client:
            raw = client.chat.completions.with_raw_response
            first = await raw.create(**body())
            assert first.headers["x-ratelimit-limit-requests"] == "120"
            assert first.headers["x-ratelimit-remaining-requests"] == "1"
            assert first.headers["x-ratelimit-reset-requests"] == "500ms"
            assert "x-ratelimit-limit-tokens" not in first.headers
            await raw.create(**body())
            with pytest.raises(openai.RateLimitError) as caught:
                await raw.create(**body())
            error = caught.value
            assert (error.code, error.type) == ("rate_limit_exceeded", "requests")
            assert error.response.headers["retry-after-ms"] == "500"
            assert error.response.headers["retry-after"] == "1"
            assert "Limit 120" in error.message
            assert "try again in 500ms" in error.message
            now = 0.5
            await raw.create(**body())
        assert server.stats["rate_limited"] == {"requests": 1}
        assert server.stats["admitted"] == 3


@pytest.mark.parametrize("refund", [False, True])
async def test_tokens_are_charged_for_prompt_and_longest_output(refund: bool) -> None:
    with served_model(tpm=1000, clock=lambda: 0.0, refund_tokens=refund) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client:
            raw = client.chat.completions.with_raw_response
            first = await raw.create(**body(max_tokens=400))
            usage = first.parse().usage
            assert usage is not None
            left = 1000 - usage.prompt_tokens - 400
            assert first.headers["x-ratelimit-remaining-tokens"] == str(left)
            second = await raw.create(**body(max_tokens=100))
            back = 400 - usage.completion_tokens if refund else 0
            left += back - usage.prompt_tokens - 100
            assert second.headers["x-ratelimit-remaining-tokens"] == str(left)
            with pytest.raises(openai.RateLimitError, match="too large") as caught:
                await raw.create(**body("word " * 600, max_tokens=1000))
            assert caught.value.type == "tokens"
            assert "retry-after" not in caught.value.response.headers


async def test_limits_can_be_enforced_in_silence(http: aiohttp.ClientSession) -> None:
    with served_model(rpm=1, rate_headers=False, clock=lambda: 0.0) as server:
        for status in (200, 429):
            async with http.post(server.base_url + PATH, json=body()) as answer:
                assert answer.status == status
                assert not [
                    h for h in answer.headers if re.match("x-ratelimit|retry", h, re.IGNORECASE)
                ]


# --- faults -----------------------------------------------------------------------------------


def test_faults_are_read_from_their_text() -> None:
    text = "500=0.01, drop=0.02,hang=0.03:1.5,malformed=0.04,truncate=0.05,seed=7"
    plan = FaultPlan.parse(text)
    assert [(f.name, f.share) for f in plan.faults] == [
        ("500", 0.01),
        ("drop", 0.02),
        ("hang", 0.03),
        ("malformed", 0.04),
        ("truncate", 0.05),
    ]
    assert plan.seed == 7
    assert plan.faults[2].seconds == 1.5
    assert FaultPlan.parse("hang=1").faults[0].seconds == 10
    assert FaultPlan.parse("").faults == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drop", "NAME=SHARE"),
        ("drop=x", "not a number"),
        ("drop=2", "between 0 and 1"),
        ("drop=0.6,500=0.6", "more than 1"),
        ("boom=0.1", "no fault is called 'boom'"),
        ("404=0.1", "500 to 599"),
        ("drop=0.1:3", "only 'hang'"),
    ],
)
def test_faults_that_make_no_sense_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaultPlan.parse(text)


def test_faults_are_seeded_and_roll_again_for_a_retry() -> None:
    plan = FaultPlan.parse("500=0.1,drop=0.1,seed=3")
    keys = [str(n) for n in range(4000)]
    first = [plan.choose(key, 0) for key in keys]
    assert first == [plan.choose(key, 0) for key in keys]
    counts = Counter(fault.name if fault else "" for fault in first)
    assert abs(counts["500"] - 400) < 90
    assert abs(counts["drop"] - 400) < 90
    again = [plan.choose(key, 1) for key, fault in zip(keys, first, strict=True) if fault]
    assert sum(fault is None for fault in again) > 0.7 * len(again)
    other = FaultPlan.parse("500=0.1,drop=0.1,seed=4")
    assert [other.choose(key, 0) for key in keys] != first


@pytest.mark.parametrize(
    ("faults", "seen"),
    [
        ("500=1", "500"),
        ("503=1", "503"),
        ("drop=1", "drop"),
        ("malformed=1", "malformed"),
        ("truncate=1", "truncate"),
        ("hang=1:0.01", "ok"),
    ],
)
async def test_faults_happen_for_real(http: aiohttp.ClientSession, faults: str, seen: str) -> None:
    with served_model(faults=faults) as server:
        assert await outcome(http, server, "Hello!") == seen
        name = faults.partition("=")[0]
        assert server.stats["faults"] == {name: 1}
        answered = 1 if seen == "ok" else 0
        assert server.stats["answered_bodies"] == answered


async def test_every_body_is_answered_in_the_end_and_a_repeat_is_counted(
    http: aiohttp.ClientSession,
) -> None:
    with served_model(faults="500=0.2,drop=0.1,malformed=0.1,truncate=0.1,seed=1") as server:
        texts = [f"Hello {n}!" for n in range(40)]
        for text in texts:
            while await outcome(http, server, text) != "ok":
                pass
        stats = server.stats
        assert stats["answered_bodies"] == stats["distinct_bodies"] == 40
        assert stats["duplicates"] == 0
        assert stats["admitted"] == 40 + sum(stats["faults"].values())
        while await outcome(http, server, texts[0]) != "ok":
            pass
        assert server.stats["duplicates"] >= 1


async def test_a_client_that_leaves_is_not_counted_as_answered(
    http: aiohttp.ClientSession,
) -> None:
    with served_model(faults="hang=1:60") as server:
        task = asyncio.create_task(outcome(http, server, "Hello!"))
        await until(lambda: bool(server.stats["in_flight"]))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not server.stats["in_flight"])
        assert server.stats["answered_bodies"] == 0
        assert server.stats["statuses"] == {"499": 1}


# --- latency ----------------------------------------------------------------------------------


def test_latencies_have_the_mean_that_was_asked_for() -> None:
    latency = Latency.parse("lognormal:0.5,0.6")
    values = [latency.seconds(str(n), 0) for n in range(4000)]
    assert abs(sum(values) / len(values) - 0.5) < 0.03
    assert values == [latency.seconds(str(n), 0) for n in range(4000)]
    assert min(values) < 0.2
    assert max(values) > 1.5
    assert Latency.parse("0.3").seconds("any", 5) == 0.3
    assert Latency().seconds("any", 0) == 0


@pytest.mark.parametrize("text", ["fast", "-1", "lognormal:1", "uniform:1,2", "nan", "inf"])
def test_latencies_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SECONDS or lognormal"):
        Latency.parse(text)


async def test_answers_take_at_least_their_latency(http: aiohttp.ClientSession) -> None:
    with served_model(latency=0.15) as server:
        start = time.perf_counter()
        assert await outcome(http, server, "Hello!") == "ok"
        assert time.perf_counter() - start >= 0.15


# --- batching and caching ---------------------------------------------------------------------


async def test_waiting_jobs_are_computed_together() -> None:
    batches: list[int] = []
    release = threading.Event()

    class Recording(Inference):
        def answer(self, jobs: Any, stop: threading.Event | None = None) -> Any:
            batches.append(len(jobs))
            release.wait()
            return super().answer(jobs, stop)

    batcher = Batcher(Recording(runtime()), batch_size=8)
    batcher.start()
    job = Job(prompt=[1, 2, 3], max_tokens=1)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(batcher.answer([job]))]
        await until(lambda: bool(batches))
        tasks += [group.create_task(batcher.answer([job, job])) for _ in range(5)]
        await asyncio.sleep(0)
        release.set()
    assert [len(task.result()) for task in tasks] == [1, 2, 2, 2, 2, 2]
    assert batches == [1, 8, 2]
    await batcher.aclose()


async def test_a_failing_model_fails_its_requests_and_not_the_server() -> None:
    class Failing(Inference):
        def answer(self, jobs: Any, stop: threading.Event | None = None) -> Any:
            if len(jobs[0].prompt) == 1:
                raise RuntimeError("no")
            return super().answer(jobs, stop)

    batcher = Batcher(Failing(runtime()))
    batcher.start()
    with pytest.raises(RuntimeError, match="no"):
        await batcher.answer([Job(prompt=[1], max_tokens=1)])
    assert await batcher.answer([Job(prompt=[1, 2], max_tokens=1)])
    await batcher.aclose()


async def test_repeats_cost_the_model_nothing_and_have_ids_of_their_own() -> None:
    with served_model() as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="k") as client:
            answers = [await client.chat.completions.create(**body()) for _ in range(3)]
        assert len({answer.id for answer in answers}) == 3
        assert len({answer.choices[0].message.content for answer in answers}) == 1
        assert server.stats["model_jobs"] == 1
        assert server.stats["duplicates"] == 2


def test_the_cache_keeps_to_its_room() -> None:
    def entry(size: int) -> Rendered:
        return Rendered(
            body=b"x" * size, mark=b"#", prompt_tokens=1, completion_tokens=1, reserved_tokens=1
        )

    cache = AnswerCache(100)
    cache.put("a", entry(40))
    cache.put("b", entry(40))
    assert cache.get("a")
    cache.put("c", entry(40))
    assert cache.get("a")
    assert not cache.get("b")
    cache.put("a", entry(50))
    assert cache.get("a")
    assert cache.get("c")
    cache.put("d", entry(101))
    assert not cache.get("d")


async def test_requests_at_the_same_time_are_all_answered(http: aiohttp.ClientSession) -> None:
    with served_model() as server:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(outcome(http, server, f"Number {n}, please.")) for n in range(64)
            ]
        assert {task.result() for task in tasks} == {"ok"}
        assert server.stats["model_jobs"] == 64
        assert server.stats["max_in_flight"] > 1


# --- other paths, start and stop --------------------------------------------------------------


async def test_paths_that_do_not_exist_are_404(http: aiohttp.ClientSession) -> None:
    with served_model() as server:
        root = server.base_url.removesuffix("/v1")
        async with http.get(root + "/health") as answer:
            assert await answer.json() == {"status": "ok"}
        async with http.get(root + "/pizza/stats") as answer:
            assert (await answer.json())["requests"]["/health"] == 1
        for method, path in (("get", "/v1/chat/completions"), ("post", "/v1/embeddings")):
            async with http.request(method, root + path) as answer:
                assert answer.status == 404
                assert "Invalid URL" in (await answer.json())["error"]["message"]


async def test_a_body_that_is_not_json_is_400(http: aiohttp.ClientSession) -> None:
    with served_model() as server:
        for data in (b"", b"{", b"\xff", b"[]"):
            async with http.post(server.base_url + PATH, data=data) as answer:
                assert answer.status == 400
                assert (await answer.json())["error"]["type"] == "invalid_request_error"


async def test_a_huge_body_is_413(http: aiohttp.ClientSession) -> None:
    with served_model() as server:
        async with http.post(server.base_url + PATH, data=io.BytesIO(b"x" * (2 << 20))) as answer:
            assert answer.status == 413
            assert "error" in await answer.json()


async def test_stopping_leaves_no_thread_and_cuts_off_what_hangs(
    http: aiohttp.ClientSession,
) -> None:
    before = set(threading.enumerate())
    with served_model(faults="hang=1:60") as server:
        task = asyncio.create_task(outcome(http, server, "Hello!"))
        await until(lambda: bool(server.stats["in_flight"]))
        start = time.perf_counter()
        await asyncio.to_thread(server.stop)
        assert time.perf_counter() - start < 5
        assert await task == "drop"
    left = {t for t in set(threading.enumerate()) - before if not t.name.startswith("asyncio")}
    assert not left


def test_two_servers_cannot_share_a_port() -> None:
    with served_model() as server:
        port = int(server.base_url.rpartition(":")[2].removesuffix("/v1"))
        with pytest.raises(OSError, match=str(port)), served_model(port=port):
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_serves_and_stops_at_once(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "pizza_embedded", "serve", "--model-name", "tiny"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(
            r"pizza-embedded serves 'tiny' on (http://127\.0\.0\.1:\d+/v1)\n", line
        )
        assert found
        port = int(found[1].removesuffix("/v1").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            process.send_signal(number)
            assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


async def test_the_program_takes_its_options() -> None:
    flags = ("--rpm", "60", "--rate-style", "second", "--latency", "0.01", "--api-key", "k")
    with served_process(*flags) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client:
            await client.chat.completions.create(**body())
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(**body())
        assert server.stats["statuses"]["429"] == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--faults", "boom=1"], "no fault is called 'boom'"),
        (["--latency", "slow"], "SECONDS or lognormal"),
        (["--rpm", "0"], "greater than 0"),
        (["--weights", "/no/such/folder"], "weights cannot be read"),
        (["--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
    ],
)
def test_the_program_says_what_is_wrong(flags: list[str], message: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pizza_embedded", "serve", *flags],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.returncode in (1, 2)
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_without_aiohttp_the_program_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "from pizza_embedded.__main__ import main; sys.exit(main(['serve']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert run.returncode == 1
    assert "pip install 'pizza-embedded[serve]'" in run.stderr
    assert "Traceback" not in run.stderr
