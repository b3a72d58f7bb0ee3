# SPDX-License-Identifier: Apache-2.0
"""A model server, a Ray cluster of three nodes, and programs that run on it, in one network.

Started by `test_cluster` as a process of its own, in a network namespace of its own. Reads lines
``{"scenario": NAME, ...}`` and answers each with a line of what was found. Judging that is left to
the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[3]
sys.path[:0] = [str(HERE), str(ROOT / "benchmarks")]

from ray_nodes import Nodes  # noqa: E402
from standin import StandIn  # noqa: E402

_WORDS = 8
_LONGEST_S = 100.0


class Arena:
    """What scenarios share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes = Nodes(3, cpus=1, gpus=1)
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def inside(self, work: Any) -> Any:
        """The result of a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    @contextlib.contextmanager
    def server(self, latency: float, key: str = "") -> Iterator[StandIn]:
        """A server of the scenario's own."""
        made = StandIn(latency, key)
        self.inside(made.__aenter__())
        try:
            yield made
        finally:
            self.inside(made.__aexit__())

    def rows(self, name: str, n: int) -> Path:
        """Prompts of which no two share a perturbed prompt."""
        path = self.folder / f"{name}.jsonl"
        with path.open("w") as file:
            for i in range(n):
                prompt = " ".join(f"w{i}x{place}" for place in range(_WORDS))
                file.write(json.dumps({"id": f"r{i}", "prompt": prompt, "topic": i}) + "\n")
        return path

    def start(self, rows: Path, run: Path, server: StandIn | None, *more: str) -> Any:
        """``pizza run`` as a process."""
        common = ["--max-tokens", "3", "--evidence", "complete", "--json", "--quiet"]
        asked = ["--model", "openai:m", "--base-url", server.base_url] if server else []
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "pizza.cli", "run", str(rows), "-o", str(run)),
                *(*common, *asked, *more),
            ],
            env={**os.environ, "OPENAI_API_KEY": "sk-test-of-the-arena"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ray(self, workers: int | None = 3, **more: Any) -> tuple[str, ...]:
        """The options that name the engine."""
        options = {"address": self.nodes.address, "workers": workers, **more}
        given = ",".join(f"{k}={v}" for k, v in options.items() if v is not None)
        return ("--engine", f"ray:{given}", "--workers", "4")


def ended(process: Any) -> dict[str, Any]:
    """How a program ended."""
    try:
        out, err = process.communicate(timeout=_LONGEST_S)
    finally:
        process.kill()
    found = {"code": process.returncode, "err": err[-3000:]}
    return {**found, **(json.loads(out) if out.startswith("{") else {"out": out[-2000:]})}


def results(run: Path) -> dict[str, Any]:
    """Everything but what depends on when it was sent, by id."""
    import pyarrow.parquet as parquet

    names = ["id", "row", "columns", "output", "scores", "units"]
    rows = parquet.read_table(run / "results", columns=names).to_pylist()
    return {"ids": [row["id"] for row in rows], "rows": {row["id"]: repr(row) for row in rows}}


def until(process: Any, server: StandIn, requests: int) -> bool:
    """Wait until the server has seen so many; False when the program ended before."""
    pause = threading.Event()
    while process.poll() is None:
        if len(server.seen) >= requests:
            return True
        pause.wait(0.005)
    return False


def seen(server: StandIn) -> list[Any]:
    """What the server saw, as plain values."""
    return [[note["at"], note["body"], note["answered"]] for note in server.seen]


# --- scenarios ----------------------------------------------------------------------------------


def equal(arena: Arena, rpm: int, n: int) -> dict[str, Any]:
    """The same rows with both engines, the second under a rate."""
    rows = arena.rows("equal", n)
    with arena.server(0.02) as server:
        local = ended(arena.start(rows, arena.folder / "local", server))
        undisturbed = len(server.seen)
    with arena.server(0.02) as server:
        process = arena.start(
            rows, arena.folder / "spread", server, *arena.ray(), "--rpm", str(rpm),
            "--concurrency", "30",
        )  # fmt: skip
        spread = ended(process)
        log = (arena.folder / "spread" / "events.jsonl").read_text()
        return {
            "local": local,
            "spread": spread,
            "undisturbed": undisturbed,
            "seen": seen(server),
            "expected": results(arena.folder / "local") if local["code"] == 0 else None,
            "found": results(arena.folder / "spread") if spread["code"] == 0 else None,
            "log": log,
            "files": sorted(p.name for p in (arena.folder / "spread").rglob("*")),
            "leaked": leaked(arena.folder / "spread", "sk-test-of-the-arena"),
        }


def leaked(run: Path, key: str) -> list[str]:
    """Files that hold the key, in the run directory and wherever Ray writes."""
    found = []
    for folder in (run, Path(os.environ["RAY_TMPDIR"])):
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file() and key.encode() in path.read_bytes():
                    found.append(str(path))
    return found


def cap(arena: Arena, most: int) -> dict[str, Any]:
    """A cap over all workers, twice in one directory."""
    rows, run = arena.rows("cap", 40), arena.folder / "cap"
    with arena.server(0.05) as server:
        more = (*arena.ray(), "--max-requests", str(most), "--concurrency", "60")
        first = ended(arena.start(rows, run, server, *more))
        sent = len(server.seen)
        # The other engine finds the cap reached as well.
        second = ended(arena.start(rows, run, server, "--max-requests", str(most)))
        return {"first": first, "second": second, "sent": sent, "after": len(server.seen)}


def node(arena: Arena, n: int, at: int) -> dict[str, Any]:
    """One node is killed in the middle."""
    rows, run = arena.rows("node", n), arena.folder / "node"
    with arena.server(0.05) as server:
        calm = ended(arena.start(rows, arena.folder / "node-calm", server))
        undisturbed = len(server.seen)
    with arena.server(0.2) as server:
        process = arena.start(rows, run, server, *arena.ray(), "--concurrency", "24")
        reached = until(process, server, at)
        flying = sum(not note["answered"] for note in list(server.seen))
        arena.nodes.kill(2)
        spread = ended(process)
        arena.nodes.add()
        return {
            "calm": calm,
            "spread": spread,
            "reached": reached,
            "flying": flying,
            "undisturbed": undisturbed,
            "seen": seen(server),
            "expected": results(arena.folder / "node-calm"),
            "found": results(run) if spread["code"] == 0 else None,
        }


def driver(arena: Arena, n: int, at: list[int]) -> dict[str, Any]:
    """The program that runs is killed twice; it goes on with Ray, and then in one process."""
    rows, run = arena.rows("driver", n), arena.folder / "driver"
    with arena.server(0.02) as server:
        calm = ended(arena.start(rows, arena.folder / "driver-calm", server))
        undisturbed = len(server.seen)
    with arena.server(0.2) as server:
        kills = []
        for goal in at:
            process = arena.start(rows, run, server, *arena.ray(), "--concurrency", "24")
            reached = until(process, server, goal)
            kills.append([reached, time.monotonic()])
            process.kill()
            process.communicate()
        last = ended(arena.start(rows, run, server))
        return {
            "calm": calm,
            "last": last,
            "kills": kills,
            "undisturbed": undisturbed,
            "seen": seen(server),
            "expected": results(arena.folder / "driver-calm"),
            "found": results(run) if last["code"] == 0 else None,
        }


def gpus(arena: Arena) -> dict[str, Any]:
    """A model in the workers: one GPU each. One of the prompts is deadly."""
    rows, run = arena.folder / "gpus.jsonl", arena.folder / "gpus"
    texts = [f"tell me {n} now" for n in range(12)]
    texts[5] = "a deadly one"
    rows.write_text("".join(json.dumps({"id": i, "prompt": t}) + "\n" for i, t in enumerate(texts)))
    given = arena.ray(None)
    done = ended(arena.start(rows, run, None, "--model", "gpu-echo", *given))
    failures = (run / "failures.jsonl").read_text() if run.exists() else ""
    return {
        "done": done,
        "failures": failures,
        "found": outputs(run) if done["code"] in (0, 4) else {},
    }


def outputs(run: Path) -> dict[str, str]:
    """What was written, by id."""
    import pyarrow.parquet as parquet

    rows = parquet.read_table(run / "results", columns=["id", "output"]).to_pylist()
    return {row["id"]: row["output"] for row in rows}


def own(arena: Arena) -> dict[str, Any]:
    """A cluster that the run starts itself, and ends."""
    rows, run = arena.rows("own", 6), arena.folder / "own"
    before = raylets()
    with arena.server(0.05) as server:
        process = arena.start(rows, run, server, "--engine", "ray:workers=1")
        reached = until(process, server, 5)
        during, listening = raylets() - before, listeners()
        return {
            "reached": reached,
            "during": during,
            "listening": listening,
            "done": ended(process),
            "after": raylets() - before,
            "alone": Path("/proc/net/dev").read_text().count(":") == 1,
        }


def own_killed(arena: Arena, n: int, at: int) -> dict[str, Any]:
    """A run is killed that had started its cluster itself; then to the end in one process."""
    rows, run = arena.rows("killed", n), arena.folder / "killed"
    before = set(processes("ray::Host") + processes("ray::Worker"))
    with arena.server(0.1) as server:
        process = arena.start(rows, run, server, "--engine", "ray:workers=1")
        reached = until(process, server, at)
        process.kill()
        process.communicate()
        last = ended(arena.start(rows, run, server))
        left = set(processes("ray::Host")) - before
        return {"reached": reached, "last": last, "left": len(left), "seen": seen(server)}


def raylets() -> int:
    """Nodes that run."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += path.read_bytes().split(b"\0")[0].endswith(b"/raylet")
    return found


def listeners() -> list[str]:
    """Addresses on which somebody listens, as the kernel writes them."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A":
                found.add(local.partition(":")[0])
    return sorted(found)


def interrupt(arena: Arena, n: int, at: int) -> dict[str, Any]:
    """SIGTERM in the middle; then to the end."""
    rows, run = arena.rows("interrupt", n), arena.folder / "interrupt"
    with arena.server(0.1) as server:
        process = arena.start(rows, run, server, *arena.ray(2))
        reached = until(process, server, at)
        process.terminate()
        first = ended(process)
        kept = len(outputs(run))
        log = (run / "events.jsonl").read_text().splitlines()
        last = ended(arena.start(rows, run, server))
        return {
            "reached": reached,
            "first": first,
            "kept": kept,
            "reason": json.loads(log[-1])["reason"],
            "last": last,
            "found": results(run),
            "seen": seen(server),
        }


def wrong_key(arena: Arena) -> dict[str, Any]:
    """A key that the server does not accept; then the right one."""
    rows, run = arena.rows("key", 30), arena.folder / "key"
    with arena.server(0.05, key="sk-another") as server:
        first = ended(arena.start(rows, run, server, *arena.ray(2)))
        sent = len(server.seen)
        server.key = ""
        last = ended(arena.start(rows, run, server))
        return {"first": first, "sent": sent, "last": last}


def told(run: Path, server: Any, **more: Any) -> dict[str, Any]:
    """What came of a run, and what the server has seen of it."""
    return {**more, "found": outputs(run), "seen": seen(server)}


def coordinator(arena: Arena, n: int, at: int) -> dict[str, Any]:
    """The coordinator's process is killed in the middle; then to the end."""
    rows, run = arena.rows("coordinator", n), arena.folder / "coordinator"
    with arena.server(0.1) as server:
        process = arena.start(rows, run, server, *arena.ray(2), "--concurrency", "20")
        reached = until(process, server, at)
        for number in processes("ray::Host"):
            os.kill(number, signal.SIGKILL)
        first = ended(process)
        last = ended(arena.start(rows, run, server))
        return told(run, server, reached=reached, first=first, last=last)


def nowhere(arena: Arena) -> dict[str, Any]:
    """Workers that need more than there is."""
    rows, run = arena.rows("nowhere", 3), arena.folder / "nowhere"
    with arena.server(0.05) as server:
        given = arena.ray(1, cpus_per_worker=64, patience_s=2)
        return {"done": ended(arena.start(rows, run, server, *given)), "sent": len(server.seen)}


def no_room(arena: Arena, n: int, at: int) -> dict[str, Any]:
    """Workers cannot write results any more; then they can."""
    rows, run = arena.rows("room", n), arena.folder / "room"
    with arena.server(0.1) as server:
        process = arena.start(rows, run, server, *arena.ray(2), "--concurrency", "20")
        reached = until(process, server, at)
        (run / "results").rename(run / "away")
        first = ended(process)
        (run / "away").rename(run / "results")
        last = ended(arena.start(rows, run, server))
        return told(run, server, reached=reached, first=first, last=last)


def processes(name: str) -> list[int]:
    """Numbers of processes that call themselves so."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(name.encode()):
                found.append(int(path.parent.name))
    return found


_ALL = (
    equal,
    cap,
    node,
    driver,
    gpus,
    own,
    own_killed,
    interrupt,
    wrong_key,
    coordinator,
    nowhere,
    no_room,
)
SCENARIOS = {f.__name__: f for f in _ALL}


def main() -> None:
    """Serve scenarios until standard input ends."""
    with tempfile.TemporaryDirectory() as folder:
        arena = Arena(Path(folder))
        print(json.dumps({"address": arena.nodes.address}), flush=True)
        try:
            for number, line in enumerate(sys.stdin):
                asked = json.loads(line)
                name = asked.pop("scenario")
                arena.folder = Path(folder) / str(number)
                arena.folder.mkdir()
                try:
                    found = SCENARIOS[name](arena, **asked)
                except Exception:
                    found = {"crashed": traceback.format_exc()}
                print(json.dumps(found), flush=True)
        finally:
            arena.nodes.stop()


if __name__ == "__main__":
    main()
