# SPDX-License-Identifier: Apache-2.0
"""The row of the bulk benchmark with three Ray nodes on this machine."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from bulk_prompts import REQUESTS
from bulk_stand import HERE, Bench, result, run, scores, server

_SOURCE = HERE.parent / "plugins" / "pizza-ray" / "src"


def ray(bench: Bench) -> None:
    """One rate for all nodes, one of them killed; then the speed beside one process."""
    if find_spec("ray") is None:
        print("        left out: Ray is not installed")
        return
    _killed(bench)
    _speed(bench)


def _environment() -> dict[str, str]:
    """The plugin is found whether it is installed or not, by Ray's processes as well."""
    paths = [str(_SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def _killed(bench: Bench) -> None:
    """3,000 requests a minute over three nodes; one is killed in the middle."""
    n, rpm, burst_s, flying = (30 if bench.small else 75), 3000.0, 2.0, 60
    given: dict[str, Any] = {"rpm": rpm, "burst_s": burst_s, "concurrency": flying, "workers": 4}
    total = n * REQUESTS
    with server("--latency", "0.05") as stand:
        calm = bench.folder / "calm"
        result(run(n, calm, stand.port))
    with server("--latency", "0.3", "--sigma", "0.4") as stand:
        folder = bench.folder / "killed"
        order = run(n, folder, stand.port, kind="nodes", kill_at=total // 2, **given)
        found = result(order, env=_environment(), limit_s=400)
        counted, arrivals = stand.settled(), stand.get("arrivals")
    report = bench.report
    report.must(f"Ray, 3 nodes, {total:,} requests under {rpm:,.0f} a minute with {burst_s:.0f} s "
                "of burst, one node killed in the middle: most requests over the rate in any "
                "window, at the server", excess(arrivals, rpm / 60), rpm / 60 * burst_s,
                digits=4)  # fmt: skip
    report.must("most in flight at once, all nodes together", counted["max_in_flight"], flying)
    report.must("results that are missing", n - found["done"], 0)
    report.must("results that differ from those of one process", float(
        scores(calm) != scores(folder)), 0)  # fmt: skip
    twice = counted["requests"] - counted["distinct"]
    report.must("requests sent twice", twice, flying)


def excess(arrivals: list[float], rate: float) -> float:
    """Most by which the requests of any window are more than ``rate`` times its length."""
    worst = ahead = float("-inf")
    for number, at in enumerate(arrivals):
        # A window that begins with request i and ends with request j holds j - i + 1 of them.
        ahead = max(ahead, rate * at - number)
        worst = max(worst, number + 1 - rate * at + ahead)
    return worst


def _speed(bench: Bench) -> None:
    """Requests a second with nothing to wait for but the machine."""
    n = 40 if bench.small else 150
    speeds = {}
    for kind in ("bulk", "nodes"):
        with server("--latency", "0.05") as stand:
            order = run(n, bench.folder / kind, stand.port, kind=kind, concurrency=150)
            result(order, env=_environment(), limit_s=400)
            speeds[kind] = stand.settled()["requests"] / stand.stats()["sent_s"]
    cores = os.cpu_count()
    bench.report.note(
        f"no limit, 150 in flight, {cores} cores for all of it, the server included: requests a "
        "second of one process, and of three Ray nodes",
        f"{speeds['bulk']:.0f}, {speeds['nodes']:.0f}",
    )
