# SPDX-License-Identifier: Apache-2.0
"""Bulk runs against what they must reach, in one run, as lines that hold or fail.

``python benchmarks/bulk.py`` does everything (about 25 minutes); ``--small`` takes less of all
(about 3 minutes), and rows can be named: ``python benchmarks/bulk.py --small rate resume``.

A prompt is 39 words, explained by leave-one-out in 40 requests. The server is the stand-in of
`loopback`, a process of its own, with bodies of 53 KB and answers after 0.3 s. Everything that is
measured runs in a process of its own. CPU is process time, never wall time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import loopback

_HERE = Path(__file__).resolve().parent
_WORDS = 39
_REQUESTS = _WORDS + 1


# --- what is measured, in a process of its own ---------------------------------------------------


def prompt(number: int) -> str:
    """A prompt of 39 words that no other has one of."""
    return " ".join(f"w{number}x{place}" for place in range(_WORDS))


class Rows:
    """So many rows, made as they are read."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(self.n):
            yield {"id": number, "prompt": prompt(number), "topic": "none"}


def instant(tokens: int = 16) -> Any:
    """A backend that answers at once, with 20 alternatives per token: all but the HTTP call."""
    import numpy as np

    from pizza.abc import Backend
    from pizza.capability import Capability
    from pizza.completion import Completion, Reply, Usage

    rng = np.random.default_rng(0)
    words = tuple(f" tok{i}" for i in range(tokens))
    shared = tuple(tuple(f" alt{i}x{j}" for j in range(20)) for i in range(tokens))
    values = -np.sort(rng.exponential(5.0, (tokens, 20)).astype("f4"), axis=1).astype(float)

    class Instant(Backend):
        name = "instant"
        identity = "instant"
        capabilities = frozenset({Capability.COMPLETE, Capability.LOGPROBS})

        async def answer(self, request: Any) -> Reply:
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

    return Instant()


async def bare(n: int) -> dict[str, Any]:
    """The same prompts in a session that keeps nothing on disk."""
    import pizza

    cpu = time.process_time()
    async with pizza.Session(instant(), limits=pizza.Limits(max_concurrency=100)) as session:
        async with session.attribute_many(
            (row["prompt"] for row in Rows(n)),
            concurrency=16,
            evidence="complete",
            generation=pizza.Generation(max_tokens=16),
        ) as outcomes:
            async for outcome in outcomes:
                assert outcome.attribution is not None, outcome.error
        return {"cpu_s": time.process_time() - cpu, "spent": session.statistics.calls}


async def measured(n: int, run: str, port: int, options: dict[str, Any]) -> dict[str, Any]:
    """Make one run and say what it took."""
    import pizza
    from pizza import bulk
    from pizza.events import Pace

    paces: list[Pace] = []

    def listen(event: Any) -> None:
        if isinstance(event, Pace):
            paces.append(event)

    limits = pizza.Limits(
        requests_per_minute=options.get("rpm"),
        max_concurrency=options.get("concurrency", 100),
        # The rate is measured, and not what an account has saved up.
        burst_s=1.0 if options.get("rpm") else None,
    )
    cap = options.get("cap")
    model: Any = "openai:m" if port else instant()
    more = {"base_url": f"http://127.0.0.1:{port}/v1", "api_key": "sk-x"} if port else {}
    cpu, wall = time.process_time(), time.perf_counter()
    summary = await bulk.run(
        Rows(n),
        run,
        model=model,
        options={"evidence": "complete", "generation": pizza.Generation(max_tokens=16)},
        limits=limits,
        budget=pizza.Budget(max_calls=cap),
        workers=options.get("workers", 16),
        on_event=listen,
        **more,
    )
    steady = [p for p in paces if p.at - paces[0].at >= 10 and p.done + 20 < p.total]
    rate = None
    if len(steady) > 1:
        rate = (steady[-1].calls - steady[0].calls) / (steady[-1].at - steady[0].at)
    return {
        "reason": summary.reason,
        "done": summary.done,
        "spent": summary.spent.calls,
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rate": rate,
    }


# --- processes -----------------------------------------------------------------------------------


def client(n: int, run: Path, port: int = 0, **options: Any) -> list[str]:
    """The command of one measurement."""
    given = json.dumps([n, str(run), port, options])
    return [sys.executable, __file__, "--measure", given]


def result(command: list[str]) -> dict[str, Any]:
    """What a measurement printed, and how long its process took."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "process_s": time.perf_counter() - began}


@contextlib.contextmanager
def server(*flags: str) -> Iterator[tuple[int, Callable[[], dict[str, Any]]]]:
    """The stand-in server: its port, and a function that reads what it counted."""
    command = [sys.executable, str(_HERE / "loopback.py"), "--body", "large", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())

            def read() -> dict[str, Any]:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=30) as answer:
                    counted: dict[str, Any] = json.load(answer)
                return counted

            yield port, read
        finally:
            process.terminate()


def say(what: str, value: float, limit: float, *, least: bool = False, unit: str = "") -> None:
    """One line of the result."""
    holds = value >= limit if least else value <= limit
    sign = ">=" if least else "<="
    mark = "holds" if holds else "FAILS"
    print(f"{mark}   {what}: {value:.3g}{unit} {sign} {limit:g}{unit}", flush=True)


# --- rows ----------------------------------------------------------------------------------------


def rate(folder: Path, small: bool) -> None:
    """The share of the allowed rate from the 10th second on; then resuming, and the store."""
    n, rpm = (90, 6000.0) if small else (1000, 6000.0)
    flags = ("--latency", "0.3", "--sigma", "0.4", "--rule", "full-minute")
    with server(*flags, "--requests-per-minute", str(rpm)) as (port, read):
        found = result(client(n, folder / "rate", port, rpm=rpm))
        counted = read()
        say(f"{n} prompts x {_REQUESTS}: share of the allowed rate",
            (found["rate"] or 0.0) / (rpm / 60), 0.98, least=True)  # fmt: skip
        say("requests refused (429)", counted["refused"], 5)
        cpu = 1000 * found["cpu_s"] / found["spent"]
        print(f"        CPU per request, HTTP and reading the input included: {cpu:.2f} ms")
        store = (folder / "rate" / "responses.sqlite").stat().st_size
        raw = counted["admitted"] * len(loopback.body("large"))
        say("store / raw JSON", store / raw, 0.25)
        again = result(client(n, folder / "rate", port, rpm=rpm))
        say(f"resuming a finished run of {found['spent']:,} requests", again["process_s"], 5.0,
            unit=" s")  # fmt: skip
        say("requests that it sent", read()["requests"] - counted["requests"], 0)


def memory(folder: Path, small: bool) -> None:
    """Peak memory of many prompts against that of 100."""
    many = 1000
    if small:
        few = result(client(100, folder / "few"))
        most = result(client(many, folder / "many"))
    else:
        with server("--latency", "0.05") as (port, _):
            few = result(client(100, folder / "few", port))
            most = result(client(many, folder / "many", port))
    ratio = most["peak_mb"] / few["peak_mb"]
    print(
        f"        peak: {few['peak_mb']:.0f} MB of 100, {most['peak_mb']:.0f} MB of {many} prompts"
    )
    say(f"peak memory, {many} prompts / 100", ratio, 1.3)
    done = client(many, folder / "many")
    if small:
        again = result(done)
        say(f"resuming a finished run of {most['spent']:,} requests", again["process_s"], 5.0,
            unit=" s")  # fmt: skip
        say("requests that it sent", again["spent"] - most["spent"], 0)


def overhead(folder: Path, small: bool) -> None:
    """CPU of everything but the HTTP call: plan, cache, store, scores, parts."""
    n = 100 if small else 1000
    start = result(client(1, folder / "start"))
    found = result(client(n, folder / "overhead"))
    cpu = (found["cpu_s"] - start["cpu_s"]) / (found["spent"] - start["spent"])
    say("CPU per request of everything but the HTTP call", 1000 * cpu, 0.35, unit=" ms")
    start = result(client(1, folder / "bare", bare=True))
    found = result(client(n, folder / "bare", bare=True))
    cpu = (found["cpu_s"] - start["cpu_s"]) / (found["spent"] - start["spent"])
    print(f"        of it a session without directory and store: {1000 * cpu:.2f} ms")


def cap(folder: Path, small: bool) -> None:
    """A cap of 1,000 requests at 200 in flight, over three runs."""
    with server("--latency", "0.05") as (port, read):
        for _ in range(3):
            found = result(client(100, folder / "cap", port, cap=1000, concurrency=200, workers=64))
        say("requests that the server counted under a cap of 1,000", read()["requests"], 1000)
        print(f"        the run ended by: {found['reason']}")


def kill(folder: Path, small: bool) -> None:
    """SIGKILL at random moments: the results are those of an undisturbed run."""
    kills, n, flying = (5 if small else 20), (40 if small else 200), 50
    rng = random.Random(1)
    with server("--latency", "0.1") as (port, read):
        calm = result(client(n, folder / "calm", port, concurrency=flying))
        first = read()["requests"]
        for turn in range(kills):
            process = subprocess.Popen(client(n, folder / "killed", port, concurrency=flying))
            goal = first + (turn + rng.random()) / kills * calm["spent"]
            while process.poll() is None and read()["requests"] < goal:
                time.sleep(0.02)
            process.kill()
            process.wait()
        result(client(n, folder / "killed", port, concurrency=flying))
        twice = read()["requests"] - first - calm["spent"]
    say(f"requests sent twice per kill ({kills} kills, {flying} in flight)", twice / kills, flying)
    same = scores(folder / "calm") == scores(folder / "killed")
    say("results that differ from an undisturbed run's", float(not same), 0)


def scores(run: Path) -> dict[str, Any]:
    """Scores by id."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(run / "results", columns=["id", "output", "scores"])
    return {row["id"]: (row["output"], row["scores"]) for row in table.to_pylist()}


ROWS = {"rate": rate, "memory": memory, "overhead": overhead, "cap": cap, "kill": kill}


def main() -> None:
    """Measure what was named."""
    parser = argparse.ArgumentParser(description="bulk runs against what they must reach")
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], default=[])
    parser.add_argument("--small", action="store_true", help="less of everything")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        n, run, port, more = json.loads(options.measure)
        task = bare(n) if more.get("bare") else measured(n, run, port, more)
        print(json.dumps(asyncio.run(task)))
        return
    for name in options.rows or ROWS:
        with tempfile.TemporaryDirectory() as folder:
            ROWS[name](Path(folder), options.small)


if __name__ == "__main__":
    main()
