# SPDX-License-Identifier: Apache-2.0
"""Rows of the bulk benchmark that stand pizza beside others: same server, same prompts, same run.

Peers run under an interpreter of their own (``--peers``). One that is not installed there is left
out. Their telemetry and their look-ups on the web are switched off.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from bulk_prompts import REQUESTS
from bulk_stand import HERE, Bench, MeasurementError, Stand, result, run, server, size
from rules import best_s

_RPM = 6000.0
_MODULES = {"curator": "bespokelabs.curator", "mllm-shap": "mllm_shap"}
_QUIET = {
    "TELEMETRY_ENABLED": "false",
    "BESPOKE_CURATOR_TRACKER_DISABLED": "1",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HF_HUB_OFFLINE": "1",
    "OPENAI_API_KEY": "sk-x",
}


@cache
def _installed(python: str, name: str) -> bool:
    """Whether an interpreter can import a peer."""
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({_MODULES[name]!r}) is None)"
    return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0


def clients(bench: Bench) -> list[str]:
    """Who is compared; says who is not."""
    found = ["pizza", "cookbook"]
    for name in _MODULES:
        if bench.peers and _installed(bench.peers, name):
            found.append(name)
        else:
            print(f"        {name} is left out: not installed in {bench.peers or '(no --peers)'}")
    return found


def command(
    peers: str | None, name: str, n: int, folder: Path, port: int, **options: Any
) -> list[str]:
    """The command of a client."""
    if name == "pizza":
        return run(n, folder, port, **options)
    work = {"n": n, "port": port, "folder": str(folder), **options}
    python = peers if name in _MODULES and peers else sys.executable
    return [python, str(HERE / "bulk_peers_clients.py"), name, json.dumps(work)]


def environment(folder: Path) -> dict[str, str]:
    """What peers see of the machine: a home of their own, nothing that calls out."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return {**_QUIET, "HOME": str(home), "HF_HOME": str(home)}


def drive(peers: str | None, name: str, n: int, port: int, **options: Any) -> dict[str, Any]:
    """Let a client do its work; what it said, and the bytes that it wrote."""
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        env = None if name == "pizza" else environment(folder)
        found = result(command(peers, name, n, folder / "run", port, **options), env=env)
        return {**found, "bytes": size(folder / "run")}


def titled(name: str, found: dict[str, Any]) -> str:
    """A client with its version."""
    return " ".join([name, *filter(None, [found.get("version")])])


def failure(error: MeasurementError) -> str:
    """What a client failed of, as a cell of a table."""
    return "failed: " + " ".join(str(error)[-200:].replace("|", "/").split())


# --- under a limit -------------------------------------------------------------------------------


def rates(bench: Bench) -> None:
    """6,000 requests a minute, on a server with a minute of burst and on one with a second."""
    n = 30 if bench.small else 200
    total = n * REQUESTS
    rules = {"second": "a second's"} if bench.small else {
        "full-minute": "a minute's", "second": "a second's"}  # fmt: skip
    who = clients(bench)
    for rule, words in rules.items():
        flags = ("--latency", "0.3", "--sigma", "0.4", "--rule", rule)
        rows = []
        told: list[tuple[str, dict[str, float]]] = [(name, {}) for name in who]
        if rule == "second":
            told.insert(1, ("pizza", {"burst_s": 0.5}))
        for name, more in told:
            with server(*flags, "--requests-per-minute", str(_RPM)) as stand:
                label, *figures = _limited(bench, name, n, rule, stand, more)
            rows.append([", ".join([label, *map("{0[0]}={0[1]}".format, more.items())]), *figures])
        bench.report.table(
            ["client", "share of the rate", "s", "429", "requests lost", "answers paid"],
            rows,
            f"{n} prompts, {total:,} requests under 6,000/min, {words} worth at once, answers "
            f"after 0.3 s; the best possible is {best_s(rule, _RPM, total):.0f} s",
        )


def _limited(
    bench: Bench, name: str, n: int, rule: str, stand: Stand, more: dict[str, float]
) -> list[str]:
    try:
        found = drive(bench.peers, name, n, stand.port, rpm=_RPM, **more)
    except MeasurementError as error:
        refused = f"{stand.stats()['refused']:,}"
        return [name, failure(error), "", refused, "", ""]
    counted = stand.settled()
    share = best_s(rule, _RPM, counted["admitted"]) / max(counted["admitted_s"], 1e-9)
    return [
        titled(name, found),
        f"{100 * share:.1f} %",
        f"{counted['sent_s']:.0f}",
        f"{counted['refused']:,}",
        f"{n * REQUESTS - found['ok']:,}",
        f"{counted['delivered']:,}",
    ]


# --- without a limit -----------------------------------------------------------------------------


@cache
def _unlimited(peers: str | None, name: str, n: int) -> dict[str, Any]:
    with server("--latency", "0.05") as stand:
        return drive(peers, name, n, stand.port)


def sizes(bench: Bench) -> tuple[int, int]:
    """Few prompts and many."""
    return (10, 50) if bench.small else (100, 1000)


def costs(bench: Bench) -> None:
    """CPU, memory and disk, of few prompts and of many."""
    few, many = sizes(bench)
    rows = []
    for name in clients(bench):
        try:
            small, large = (_unlimited(bench.peers, name, number) for number in (few, many))
        except MeasurementError as error:
            rows.append([name, failure(error), "", "", "", ""])
            continue
        more = (many - few) * REQUESTS
        rows.append(
            [
                titled(name, large),
                f"{large['wall_s']:.0f}",
                f"{1000 * (large['cpu_s'] - small['cpu_s']) / more:.2f}",
                f"{small['peak_mb']:.0f}, {large['peak_mb']:.0f}",
                f"{large['peak_mb'] / small['peak_mb']:.2f} x",
                f"{large['bytes'] / many / REQUESTS / 1024:.1f}",
            ]
        )
    bench.report.table(
        ["client", "s", "CPU ms per request", "peak MB", "ratio", "KB on disk per answer"],
        rows,
        f"No limit, 100 in flight, answers of 53 KB after 0.05 s, {many:,} prompts against {few}; "
        f"CPU is what the other {many - few:,} prompts took",
    )


def memory(bench: Bench) -> None:
    """Peak memory of many prompts against that of few."""
    few, many = sizes(bench)
    small, large = (_unlimited(bench.peers, "pizza", number) for number in (few, many))
    peaks = f"{small['peak_mb']:.0f} MB, {large['peak_mb']:.0f} MB"
    bench.report.note(f"peak memory of {few} and of {many:,} prompts", peaks)
    ratio = large["peak_mb"] / small["peak_mb"]
    bench.report.must(f"peak memory, {many:,} prompts / {few}", ratio, 1.3, unit=" x")


# --- killed --------------------------------------------------------------------------------------


def interrupt(
    order: list[str], stand: Stand, goal: int, env: dict[str, str] | None = None
) -> dict[str, Any]:
    """Start a client, SIGKILL it when the server has counted so many requests; what it counted."""
    process = subprocess.Popen(
        order,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, **(env or {})},
    )
    while process.poll() is None and stand.stats()["requests"] < goal:
        time.sleep(0.01)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return stand.settled()


def restarts(bench: Bench) -> None:
    """SIGKILL in the middle and a restart: what is sent again."""
    n = 40
    rows = []
    for name in clients(bench):
        with server("--latency", "0.1") as stand:
            env = None if name == "pizza" else environment(bench.folder)
            folder = bench.folder / f"killed-{name}"
            order = command(bench.peers, name, n, folder, stand.port)
            before = interrupt(order, stand, n * REQUESTS // 2, env)
            try:
                found = result(order, env=env)
            except MeasurementError as error:
                rows.append([name, f"{before['requests']:,}", "", failure(error)])
                continue
            counted = stand.settled()
        twice = counted["requests"] - counted["distinct"]
        kept = "all" if found["ok"] == n * REQUESTS else f"{found['ok']:,}"
        rows.append([titled(name, found), f"{before['requests']:,}", f"{twice:,}", kept])
    bench.report.table(
        ["client", "requests at the kill", "requests sent twice", "results in the end"],
        rows,
        f"SIGKILL in the middle of {n} prompts ({n * REQUESTS:,} requests, at most 100 in flight), "
        "then the same command again",
    )


ROWS = {"peers-rate": rates, "peers-cost": costs, "peers-kill": restarts}
