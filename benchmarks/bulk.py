# SPDX-License-Identifier: Apache-2.0
"""Bulk runs against what they must reach and beside others, in one run.

``python benchmarks/bulk.py`` does everything (about 30 minutes); ``--small`` takes less of all
(about 5 minutes), and rows can be named: ``python benchmarks/bulk.py --small rate kill``. ``--write
docs/benchmarks.md`` puts the figures there.

A prompt is 39 words, explained by leave-one-out in 40 requests. The server is the stand-in of
`loopback`, a process of its own, with bodies of 53 KB. Everything that is measured runs in a
process of its own (`bulk_runs`, `bulk_peers_clients`). CPU is process time, never wall time. Where
that is allowed, everything runs in a network namespace with nothing but loopback in it.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import sqlite3
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import bulk_peers
import loopback
from bulk_peers import interrupt
from bulk_prompts import REQUESTS
from bulk_ray import ray
from bulk_stand import Bench, MeasurementError, Report, Row, result, run, scores, server
from ray_nodes import isolated

_INSIDE = "PIZZA_BENCHMARK_ISOLATED"


def rate(bench: Bench) -> None:
    """The share of the allowed rate from the 10th second on; then resuming, and the store."""
    report, folder = bench.report, bench.folder / "rate"
    n, rpm = (90, 6000.0) if bench.small else (1000, 6000.0)
    flags = ("--latency", "0.3", "--sigma", "0.4", "--rule", "full-minute")
    with server(*flags, "--requests-per-minute", str(rpm)) as stand:
        # The rate is measured, and not what an account has saved up.
        found = result(run(n, folder, stand.port, rpm=rpm, burst_s=1.0))
        counted = stand.settled()
        arrivals = stand.get("arrivals")
        later = [at for at in arrivals if at - arrivals[0] >= 10]
        share = (len(later) - 1) / (later[-1] - later[0]) / (rpm / 60)
        report.must(f"{n:,} prompts x {REQUESTS} requests under 6,000 a minute: share of that rate "
                    "from the 10th second to the last request, at the server", 100 * share, 98,
                    least=True, unit=" %", digits=4)  # fmt: skip
        report.must("of them refused (429)", counted["refused"], 5)
        cpu = 1000 * found["cpu_s"] / found["spent"]
        report.note("CPU per request of that run, HTTP, reading the input and the start included",
                    f"{cpu:.2f} ms")  # fmt: skip
        stored = sum(path.stat().st_size for path in folder.glob("responses.sqlite*"))
        raw = counted["admitted"] * len(loopback.body("large"))
        report.must("store against the raw JSON of all answers", 100 * stored / raw, 25, unit=" %")
        again = result(run(n, folder, stand.port, rpm=rpm, burst_s=1.0))
        report.must(f"resuming a finished run of {found['spent']:,} requests, with the start of "
                    "Python", again["process_s"], 5, unit=" s")  # fmt: skip
        report.must("requests that it sent", stand.stats()["requests"] - counted["requests"], 0)


def overhead(bench: Bench) -> None:
    """CPU of everything but the HTTP call: plan, cache, store, scores, parts."""
    n = 100 if bench.small else 1000
    for kind, words in (("bulk", "everything but the HTTP call"), ("bare", "")):
        first = result(run(1, bench.folder / f"first-{kind}", kind=kind))
        found = result(run(n, bench.folder / kind, kind=kind))
        cpu = 1000 * (found["cpu_s"] - first["cpu_s"]) / (found["spent"] - first["spent"])
        if words:
            report_to = f"CPU per request of {words} (16 tokens, 20 alternatives)"
            bench.report.must(report_to, cpu, 0.35, unit=" ms")
        else:
            bench.report.note("of it in a session without directory and store", f"{cpu:.2f} ms")
    if bench.small:
        again = result(run(n, bench.folder / "bulk"))
        bench.report.note(f"resuming that run of {n * REQUESTS:,} requests",
                          f"{again['process_s']:.1f} s")  # fmt: skip


def cap(bench: Bench) -> None:
    """A cap of 1,000 requests at 200 in flight, over three runs of one directory."""
    with server("--latency", "0.05") as stand:
        for _ in range(3):
            found = result(run(100, bench.folder / "cap", stand.port, cap=1000, concurrency=200,
                               workers=64))  # fmt: skip
        counted = stand.settled()
    bench.report.must("requests that the server counted under a cap of 1,000 with 200 in flight, "
                      f"over three runs (ended by: {found['reason']})", counted["requests"], 1000,
                      digits=4)  # fmt: skip


def kill(bench: Bench) -> None:
    """SIGKILL at random moments of one run: what was in flight, what was sent twice, results."""
    kills, n, flying = (5, 40, 50) if bench.small else (20, 200, 50)
    rng = random.Random(1)
    folder = bench.folder / "killed"
    answers = ("--latency", "0.3", "--sigma", "0.4")
    with server(*answers) as stand:
        result(run(n, bench.folder / "calm", stand.port, concurrency=flying))
    flew: list[int] = []
    with server(*answers) as stand:
        order = run(n, folder, stand.port, concurrency=flying)
        for turn in range(kills):
            goal = round((turn + rng.random()) / kills * n * REQUESTS)
            counted = interrupt(order, stand, goal)
            flew.append(counted["distinct"] - _stored(folder))
        result(order)
        counted = stand.settled()
    twice = counted["requests"] - counted["distinct"]
    what = f"{kills} x SIGKILL over {n * REQUESTS:,} requests, {flying} in flight: "
    # An answer that has come and is on its way to the disk is in flight, too.
    bench.report.note(what + "sent and not stored at a kill, on average and at most",
                      f"{sum(flew) / kills:.1f}, {max(flew)}")  # fmt: skip
    bench.report.must("requests that the server counted twice, all kills together, against those",
                      twice, sum(flew), digits=5)  # fmt: skip
    bench.report.note("of those, the server was still answering", f"{counted['abandoned']:,}")
    differ = scores(bench.folder / "calm") != scores(folder)
    bench.report.must("results that differ from an undisturbed run's", float(differ), 0)


def _stored(folder: Path) -> int:
    """Answers in a run's store."""
    path = folder / "responses.sqlite"
    if not path.exists():
        return 0
    store = sqlite3.connect(path)
    try:
        return int(store.execute("SELECT count(*) FROM answers").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # Killed before there was a table.
    finally:
        store.close()


def fairness(bench: Bench) -> None:
    """A short prompt in a session that is busy with long ones."""
    with server("--latency", "0.1") as stand:
        found = result(run(3, bench.folder, stand.port, kind="neighbours"))
    bench.report.note("one prompt of 39 words, 50 in flight: alone, and in a session that is busy "
                      "with 16 prompts of 400 words (medians)",
                      f"{found['alone']:.2f} s, {found['busy']:.2f} s")  # fmt: skip


ROWS: dict[str, Row] = {
    "rate": rate,
    "memory": bulk_peers.memory,
    "overhead": overhead,
    "cap": cap,
    "kill": kill,
    "fairness": fairness,
    "ray": ray,
    **bulk_peers.ROWS,
}


def machine() -> str:
    """Where and when."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{date.today()}, {os.cpu_count()} cores, Python {platform.python_version()}, load at the "
        f"start {load}."
    )


def enclose() -> None:
    """Start again in a network with nothing but loopback, where that is allowed."""
    if not os.environ.get(_INSIDE):
        os.environ[_INSIDE] = "1"
        command = isolated([sys.executable, *sys.argv])
        os.execvp(command[0], command)


def main() -> None:
    """Measure what was named; ends with 1 where something fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; all by default")
    parser.add_argument("--small", action="store_true", help="less of everything")
    parser.add_argument("--peers", default=os.environ.get("PIZZA_BENCHMARK_PEERS"),
                        help="the Python in which mllm-shap and bespokelabs-curator are installed "
                        "(default: $PIZZA_BENCHMARK_PEERS)")  # fmt: skip
    parser.add_argument("--write", type=Path, help="put the figures into this page")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    enclose()
    report, where = Report(), machine()
    for name in options.rows or ROWS:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(Path(folder), options.small, report, options.peers)
            try:
                ROWS[name](bench)
            except MeasurementError as error:
                report.failed += 1
                print(f"FAILS   {name}: {error}", flush=True)
        print(f"        ({name}: {time.perf_counter() - began:.0f} s)", flush=True)
    if options.write:
        report.write(options.write, where)
    else:
        print("\n" + report.markdown(where))
    sys.exit(bool(report.failed))


if __name__ == "__main__":
    main()
