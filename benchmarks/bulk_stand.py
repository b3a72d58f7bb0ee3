# SPDX-License-Identifier: Apache-2.0
"""What the rows of the bulk benchmark stand on: server and clients as processes, and the report."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_MARKS = ("<!-- bulk: begin -->\n", "<!-- bulk: end -->\n")


# --- processes -----------------------------------------------------------------------------------


class MeasurementError(Exception):
    """A process of a measurement did not do its work."""


@dataclass(frozen=True)
class Stand:
    """A running stand-in server."""

    port: int

    def get(self, path: str) -> Any:
        """What it says of itself."""
        url = f"http://127.0.0.1:{self.port}/{path}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return json.load(answer)

    def stats(self) -> dict[str, Any]:
        """What it counted."""
        counted: dict[str, Any] = self.get("stats")
        return counted

    def settled(self) -> dict[str, Any]:
        """What it counted when all clients have gone and all that they had sent was read."""
        while (counted := self.stats())["connections"] > 1 or counted["in_flight"]:
            time.sleep(0.01)
        return counted


@contextlib.contextmanager
def server(*flags: str) -> Iterator[Stand]:
    """The stand-in server, in a session of its own (see `scheduler`)."""
    command = [sys.executable, str(HERE / "loopback.py"), "--body", "large", *flags]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            yield Stand(int(process.stdout.readline()))
        finally:
            process.terminate()


def run(n: int, folder: Path, port: int = 0, **options: Any) -> list[str]:
    """The command of one run of pizza: see `bulk_runs`."""
    given = json.dumps([n, str(folder), port, options])
    return [sys.executable, str(HERE / "bulk_runs.py"), given]


def result(
    command: list[str], *, env: dict[str, str] | None = None, limit_s: float = 1200.0
) -> dict[str, Any]:
    """What a process printed last, as JSON, and how long it took.

    Raises:
        MeasurementError: It ended with an error, or not at all.
    """
    began = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"not done after {limit_s:.0f} s") from None
    if done.returncode:
        raise MeasurementError(f"ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "process_s": time.perf_counter() - began}


def size(folder: Path) -> int:
    """Bytes on disk of everything in a folder."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def scores(folder: Path) -> dict[str, Any]:
    """Outputs and scores of a run, by id."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(folder / "results", columns=["id", "output", "scores"])
    return {row["id"]: (row["output"], row["scores"]) for row in table.to_pylist()}


# --- the report ----------------------------------------------------------------------------------


@dataclass
class Report:
    """Lines as they come, and the table of them in the end."""

    lines: list[tuple[str, str, str]] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    failed: int = 0

    def must(self, what: str, value: float, limit: float, *, least: bool = False, unit: str = "",
             digits: int = 3) -> None:  # fmt: skip
        """One figure that holds or fails."""
        holds = value >= limit if least else value <= limit
        self.failed += not holds
        sign = ">=" if least else "<="
        shown = f"{value:,.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"
        mark = "holds" if holds else "FAILS"
        print(f"{mark}   {what}: {shown}{unit} {sign} {limit:,g}{unit}", flush=True)
        said = f"{shown}{unit}" if holds else f"**{shown}{unit}: not reached**"
        self.lines.append((what, f"{sign} {limit:,g}{unit}", said))

    def note(self, what: str, value: str) -> None:
        """One figure that nothing is asked of."""
        print(f"        {what}: {value}", flush=True)
        self.lines.append((what, "", value))

    def table(self, head: list[str], rows: list[list[str]], caption: str) -> None:
        """A table of its own."""
        lines = [head, ["---"] * len(head), *rows]
        text = "\n".join("| " + " | ".join(row) + " |" for row in lines)
        print(f"\n{caption}\n\n{text}\n", flush=True)
        self.tables.append(f"{caption}\n\n{text}\n")

    def markdown(self, machine: str) -> str:
        """Everything, for the documentation."""
        head = "| work | at least | pizza |\n|---|---|---|\n"
        body = "".join(f"| {' | '.join(line)} |\n" for line in self.lines)
        return "\n".join([machine + "\n", head + body, *self.tables])

    def write(self, page: Path, machine: str) -> None:
        """Put it between the marks of a page.

        Raises:
            MeasurementError: The page has no marks.
        """
        text = page.read_text(encoding="utf-8")
        before, begin, rest = text.partition(_MARKS[0])
        _, end, after = rest.partition(_MARKS[1])
        if not begin or not end:
            raise MeasurementError(
                f"{page} has no lines {_MARKS[0].strip()} and {_MARKS[1].strip()}."
            )
        page.write_text(
            f"{before}{begin}\n{self.markdown(machine)}\n{end}{after}", encoding="utf-8"
        )


@dataclass(frozen=True)
class Bench:
    """What a row of the benchmark gets.

    Attributes:
        folder: Empty, its own.
        small: Whether to take less of everything.
        report: Where figures go.
        peers: The interpreter in which peers are installed, if any.
    """

    folder: Path
    small: bool
    report: Report
    peers: str | None


Row = Callable[[Bench], None]
