# SPDX-License-Identifier: Apache-2.0
"""The scheduler beside what others do, in one run, as a Markdown table.

``python benchmarks/scheduler.py`` runs every row (about 20 minutes); ``python
benchmarks/scheduler.py cpu memory`` runs some. Nothing is written but the table.

Every measurement is a process of its own with its own server process, each in a session of its
own (otherwise the kernel's autogroup scheduling gives them one share of the processor). Rows of
which the time is set by rates and latencies run side by side; rows that measure processor time
run alone, with client and server on different cores. CPU is process time, never wall time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import loopback
from inside import lengths, measure
from rules import best_s

_HERE = Path(__file__).resolve().parent
_RPM = 600.0
_TPM = 120_000.0
_KINDS = {
    "full-minute": "full-minute bucket",
    "bucket-10": "bucket of 10",
    "bucket-10-costly": "bucket of 10, a 429 costs quota",
    "window": "fixed 60 s window",
}

# --- one measurement ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One client against one server, or one thing done in a process of its own."""

    client: str
    n: int
    server: tuple[str, ...] | None = ()
    concurrency: int = 50
    rpm: float | None = None
    tpm: float | None = None
    token_mix: bool = False
    warm_up: int = 0
    pinned: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


def run(cell: Cell) -> dict[str, Any]:
    """Measure a cell; returns what the client and the server counted."""
    with contextlib.ExitStack() as stack:
        port = 0
        if cell.server is not None:
            command = [sys.executable, str(_HERE / "loopback.py"), *cell.server]
            server = stack.enter_context(_process(_on_core(1, cell.pinned) + command))
            port = int(server.stdout.readline())  # type: ignore[union-attr]
        plain = {k: v for k, v in vars(cell).items() if k != "server"}
        command = [sys.executable, __file__, "--cell", json.dumps({**plain, "port": port})]
        client = stack.enter_context(_process(_on_core(0, cell.pinned) + command))
        output, _ = client.communicate()
        result: dict[str, Any] = json.loads(output)
        if port:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=30) as response:
                result["server"] = json.load(response)
        return result


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=_HERE
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _on_core(core: int, pinned: bool) -> list[str]:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return ["taskset", "-c", str(cores[core])] if pinned and len(cores) > 1 else []


def side_by_side(cells: list[Cell], apart_s: float = 3.0) -> list[dict[str, Any]]:
    """Measure cells at the same time, started one after the other.

    Otherwise all of them send their first burst in the same second, and what is measured is how
    they share the processor.
    """

    def start(numbered: tuple[int, Cell]) -> dict[str, Any]:
        time.sleep(numbered[0] * apart_s)
        return run(numbered[1])

    with ThreadPoolExecutor(len(cells)) as pool:
        return list(pool.map(start, enumerate(cells)))


# --- rows --------------------------------------------------------------------------------------

Row = tuple[str, str, str, str]


def _rate_cell(client: str, kind: str, n: int, rpm: float | None) -> Cell:
    server = ("--rule", kind, "--requests-per-minute", str(_RPM), "--latency", "0.3")
    # 100 in flight: with 50 the end of the last window would measure latency, not the limiter.
    return Cell(client, n, (*server, "--body", "small"), rpm=rpm, concurrency=100)


def _rate_text(kind: str, n: int, result: dict[str, Any]) -> str:
    server = result["server"]
    best = best_s(kind, _RPM, server["admitted"])
    share = 100 * best / server["admitted_s"]
    lost = n - result["ok"]
    return f"{share:.1f} %, {server['refused']:,} x 429, {lost} lost"


def rate() -> list[Row]:
    """A hard limit of requests per minute on four kinds of servers."""
    n = 1500
    cells = {
        (kind, who): _rate_cell("naive" if who == "naive" else "pizza", kind, n, rpm)
        for kind in _KINDS
        for who, rpm in (("told", _RPM), ("learned", None), ("naive", _RPM))
    }
    # The comparisons need several times as much processor time: not beside ours.
    measured: dict[tuple[str, str], dict[str, Any]] = {}
    for theirs in (False, True):
        wave = {key: cell for key, cell in cells.items() if (key[1] == "naive") == theirs}
        measured |= dict(zip(wave, side_by_side(list(wave.values())), strict=True))
    rows = []
    for kind, words in _KINDS.items():
        naive = "AsyncLimiter + openai retries: " + _rate_text(kind, n, measured[kind, "naive"])
        for who in ("told", "learned"):
            goal = "99 %" if kind != "window" else "98 %" if who == "told" else "92 %"
            label = "told the limit" if who == "told" else "told nothing, headers"
            rows.append(
                (
                    f"600 requests/min, {n:,} requests, {words}; {label}",
                    f"{goal}, 5 x 429, 0 lost",
                    _rate_text(kind, n, measured[kind, who]),
                    naive,
                )
            )
    return rows


def tokens() -> list[Row]:
    """A hard limit of tokens per minute, with prompts of very different size."""
    n = 500
    total = sum(length // 4 + 16 for length in lengths(n))
    rows, cells = [], {}
    bursts = {"10,000 tokens of burst": 10_000.0, "a full minute of burst": _TPM}
    for words, burst in bursts.items():
        server = ("--tokens-per-minute", str(_TPM), "--tokens-burst", str(burst))
        server += ("--latency", "0.3", "--body", "small")
        for client, tpm in (("pizza", _TPM), ("pizza", None), ("naive", _TPM)):
            cells[words, client, tpm] = Cell(client, n, server, tpm=tpm, token_mix=True)
    measured = dict(zip(cells, side_by_side(list(cells.values())), strict=True))

    def text(words: str, client: str, tpm: float | None) -> str:
        result = measured[words, client, tpm]
        best = (result["server"]["tokens"] - bursts[words]) / (_TPM / 60)
        share = 100 * best / result["server"]["admitted_s"]
        lost = n - result["ok"]
        return f"{share:.1f} %, {result['server']['refused']:,} x 429, {lost} lost"

    for words in bursts:
        for tpm, label in ((_TPM, "told the limit"), (None, "told nothing, headers")):
            rows.append(
                (
                    (
                        f"120,000 tokens/min, {n} prompts of 69-3,019 tokens ({total:,} in all), "
                        f"{words}; {label}"
                    ),
                    "99 %",
                    text(words, "pizza", tpm),
                    f"AsyncLimiter + openai retries: {text(words, 'naive', _TPM)}",
                )
            )
    return rows


def makespan() -> list[Row]:
    """No limit, log-normal latency: how close to greedy list scheduling in the same order."""
    n, few, slots, median, sigma = 8000, 1000, 50, 0.835, 0.6
    server = ("--latency", str(median), "--sigma", str(sigma), "--body", "small")
    ours = run(Cell("pizza", n, server))
    others, chunked = side_by_side([Cell("semaphore", few, server), Cell("chunks", few, server)])
    alone = loopback.latency(0, median, sigma) / _list_scheduling(n, slots, median, sigma)
    bound, short = (_list_scheduling(m, slots, median, sigma) for m in (n, few))
    return [
        (
            (
                f"no limit, log-normal latency (mean 1 s, sigma {sigma}), concurrency {slots}, "
                f"{n:,} requests"
            ),
            "1.02 x list scheduling of the same order",
            f"{ours['wall_s'] / bound:.3f} x (of it {alone:.3f} for the first request, alone)",
            (
                f"semaphore + AsyncOpenAI {others['wall_s'] / short:.3f} x; chunks of {slots} "
                f"{chunked['wall_s'] / short:.2f} x ({few:,} requests each)"
            ),
        )
    ]


def _list_scheduling(n: int, slots: int, median: float, sigma: float) -> float:
    """Each request starts in the order given as soon as a slot is free."""
    free = [0.0] * slots
    for index in range(n):
        heapq.heapreplace(free, free[0] + loopback.latency(index, median, sigma))
    return max(free)


def cpu() -> list[Row]:
    """Processor time of the client per request."""
    n = 2000
    cells = [
        Cell(client, n, ("--body", "large"), concurrency=200, warm_up=200, pinned=True)
        for client in ("pizza", "semaphore", "aiohttp")
    ]
    # Twice, the better of the two: other work on the machine only ever adds.
    rounds = [[run(cell) for cell in cells] for _ in range(2)]
    ours, plain, bare = (min(r[i]["cpu_s"] for r in rounds) / n * 1e3 for i in range(len(cells)))
    size = len(loopback.body("large")) / 1000
    return [
        (
            f"client CPU per request, {size:.0f} kB body, concurrency 200, no latency",
            "0.3 x AsyncOpenAI; stretch 0.2 x",
            f"{ours / plain:.2f} x ({ours:.2f} ms)",
            (
                f"AsyncOpenAI {plain:.2f} ms; bare aiohttp + msgspec {bare / plain:.2f} x "
                f"({bare:.2f} ms)"
            ),
        )
    ]


def journal() -> list[Row]:
    """Looking up and storing."""
    result = run(Cell("journal", 5000, ("--body", "large"), pinned=True))
    return [
        (
            (
                "look up, encode, store and commit an answer (16 tokens, 20 alternatives), "
                "concurrency 50, SQLite"
            ),
            "0.2 ms CPU, 5 KB on disk",
            f"{result['cpu_ms']:.2f} ms, {result['kb']:.1f} KB",
            f"the answer's JSON: {len(loopback.body('compact')) / 1024:.0f} KB compact",
        )
    ]


def memory() -> list[Row]:
    """Peak memory with a long queue."""
    short, long, tasks = (
        run(Cell(client, n, None))
        for client, n in (("memory", 10_000), ("memory", 1_000_000), ("gather", 100_000))
    )
    return [
        (
            "1,000,000 queued requests, all answered, results streamed",
            "peak memory within 10 MB of that of 10,000",
            (
                f"{long['rss_mb'] - short['rss_mb']:+.1f} MB ({long['rss_mb']:.0f} MB; first "
                f"result after {long['first_s'] * 1e3:.0f} ms)"
            ),
            f"a task per request behind a semaphore: {tasks['rss_mb']:.0f} MB at 100,000",
        )
    ]


def faults() -> list[Row]:
    """Errors, dropped connections, slow answers, broken bodies."""
    n = 2000
    mix = "error=0.01,drop=0.01,slow=0.01,malformed=0.005,truncated=0.005"
    server = ("--latency", "0.05", "--faults", mix, "--body", "compact")
    ours, plain = side_by_side([Cell("pizza", n, server), Cell("semaphore", n, server)])

    def text(result: dict[str, Any]) -> str:
        seen = result["server"]
        return (
            f"{result['ok']:,} answered, {seen['paid_twice']} paid twice "
            f"({seen['faults']} faults, {seen['requests']:,} sent)"
        )

    return [
        (
            "1 % 500s, 1 % dropped, 1 % slow by 10 s, 1 % malformed or truncated, 2,000 requests",
            "all answered, none paid twice",
            text(ours),
            f"AsyncOpenAI: {text(plain)}",
        )
    ]


def imports() -> list[Row]:
    """What `import pizza` costs."""
    ours, theirs = (
        run(Cell("import", 7, None, extra={"module": module})) for module in ("pizza", "openai")
    )
    return [
        (
            "`import pizza`",
            "60 ms CPU; none of numpy, openai, torch",
            f"{ours['cpu_ms']:.1f} ms; {ours['modules'] or 'none of them'}",
            f"`import openai` {theirs['cpu_ms']:.0f} ms",
        )
    ]


ROWS: dict[str, Callable[[], list[Row]]] = {
    "import": imports,
    "cpu": cpu,
    "journal": journal,
    "memory": memory,
    "faults": faults,
    "rate": rate,
    "tokens": tokens,
    "makespan": makespan,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; all by default")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        print(json.dumps(asyncio.run(measure(json.loads(options.cell)))))
        return
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    print("| work | at least | pizza | beside it, in the same run |\n|---|---|---|---|")
    for name in options.rows or ROWS:
        for row in ROWS[name]():
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
