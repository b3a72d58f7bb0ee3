# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed, that run out of disk, and that meet another process."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading

import pytest
from support.server import served_model

from pizza import bulk

pq = pytest.importorskip("pyarrow.parquet", reason="installed with the extra 'bulk'")

CONCURRENCY = 8


def program(server, path, run, *more):
    return [
        *(sys.executable, "-m", "pizza.cli", "run", str(path), "-o", str(run)),
        *("--model", f"openai:{server.model}", "--base-url", server.base_url),
        *("--max-tokens", "8", "--concurrency", str(CONCURRENCY), "--workers", "3", *more),
    ]


def start(*arguments):
    return subprocess.Popen(
        program(*arguments),
        env={**os.environ, "OPENAI_API_KEY": "sk-test"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    out, err = process.communicate(timeout=90)
    return process.returncode, out, err


def scores(run):
    rows = pq.read_table(run / "results").to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: (row["output"], row["scores"]) for row in rows}


def until(process, server, requests):
    """Wait until the server has seen so many requests; False when the process ended before."""
    pause = threading.Event()
    while process.poll() is None:
        if sum(server.stats["requests"].values()) >= requests:
            return True
        pause.wait(0.005)
    return False


def killed_after(process, server, requests):
    """Kill once the server has seen so many requests; False when it ended before."""
    reached = until(process, server, requests)
    process.kill()
    process.communicate()
    return reached


@pytest.mark.slow
def test_killed_again_and_again_it_ends_as_if_nothing_had_been(prompts, tmp_path):
    path = prompts(25)
    with served_model() as server:
        code, _, err = ended(start(server, path, tmp_path / "calm"))
        assert code == 0, err
        undisturbed = sum(server.stats["requests"].values())
    rng = random.Random(5)
    kills = 0
    with served_model() as server:
        for share in (0.15, 0.4, 0.6, 0.85):
            process = start(server, path, tmp_path / "run")
            kills += killed_after(process, server, undisturbed * share + rng.randrange(5))
        assert kills == 4
        code, _, err = ended(start(server, path, tmp_path / "run"))
        assert code == 0, err
        # Sent twice at most: what was under way at a kill, and answers that had come in and were
        # not yet on the disk.
        assert server.stats["duplicates"] <= kills * 2 * CONCURRENCY
        sent = sum(server.stats["requests"].values())
        assert sent <= undisturbed + kills * 2 * CONCURRENCY
        summary = json.loads((tmp_path / "run" / "events.jsonl").read_text().splitlines()[-1])
        # What was under way counts as spent, since the server may have charged for it; what only
        # waited for its turn does not.
        assert sent <= summary["spent"]["calls"] <= sent + kills * CONCURRENCY
    calm, run = scores(tmp_path / "calm"), scores(tmp_path / "run")
    assert {k: v[0] for k, v in calm.items()} == {k: v[0] for k, v in run.items()}
    for name, (_, expected) in calm.items():
        assert run[name][1] == expected or all(
            abs(a - b) < 1e-4
            for mine, theirs in zip(run[name][1], expected, strict=True)
            for a, b in zip(mine, theirs, strict=True)
        )


@pytest.mark.slow
def test_a_cap_holds_over_kills(prompts, tmp_path):
    path = prompts(25)
    with served_model() as server:
        for at in (30, 60, 90):
            process = start(server, path, tmp_path / "run", "--max-requests", "120")
            assert killed_after(process, server, at)
        code, _, err = ended(start(server, path, tmp_path / "run", "--max-requests", "120"))
        assert code == 5, err
        assert sum(server.stats["requests"].values()) <= 120


def limited(command, kilobytes):
    """The command with a limit on the size of its files, which is what a full disk looks like."""
    return ["bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash", *command]


def test_a_full_disk_stops_the_run_cleanly_and_it_goes_on_later(prompts, tmp_path):
    path = prompts(20)
    with served_model() as server:
        command = program(server, path, tmp_path / "run")
        process = subprocess.Popen(
            limited(command, 160),
            env={**os.environ, "OPENAI_API_KEY": "sk-test"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        code, _, err = ended(process)
        assert code == 1, err
        assert "Traceback" not in err
        assert "make room" in err.lower()
        stopped = sum(server.stats["requests"].values())
        code, _, err = ended(start(server, path, tmp_path / "run"))
        assert code == 0, err
        # It stopped soon after the first answer that could not be kept.
        assert server.stats["duplicates"] <= 4 * CONCURRENCY
        assert stopped < sum(server.stats["requests"].values())
    assert len(scores(tmp_path / "run")) == 20


def test_a_part_that_does_not_fit_is_not_left_half_written(prompts, tmp_path, served):
    path = prompts(3)
    run = tmp_path / "run"
    asyncio.run(bulk.run(path, run, **served))
    part = run / "results" / "part-000001.parquet"
    expected = part.read_bytes()
    part.unlink()
    script = (
        "import resource, sys, pathlib; from pizza.bulk.parts import write_part, schema;"
        "import pyarrow as pa;"
        "row = {f.name: 'x' * 5000 if f.type == pa.string() else None for f in schema()};"
        "row['row'] = 0;"
        "batch = pa.RecordBatch.from_pylist([row], schema=schema());"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));\n"
        "try: write_part(pathlib.Path(sys.argv[1]), [batch])\n"
        "except OSError as error: print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(part)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "refused\n", done.stderr
    assert list((run / "results").iterdir()) == []
    assert expected


def test_the_second_process_on_a_directory_refuses(prompts, tmp_path):
    path = prompts(12)
    with served_model(latency="0.1") as server:
        first = start(server, path, tmp_path / "run")
        assert until(first, server, 1)
        code, _, err = ended(start(server, path, tmp_path / "run"))
        assert code == 2
        assert f"process {first.pid} on " in err
        code, _, err = ended(first)
        assert code == 0, err
        assert server.stats["duplicates"] == 0
    assert len(scores(tmp_path / "run")) == 12


@pytest.mark.slow
def test_sigterm_and_ctrl_c_end_it_in_good_order(prompts, tmp_path):
    path = prompts(25)
    with served_model(latency="0.05") as server:
        for number, at in ((signal.SIGTERM, 40), (signal.SIGINT, 80)):
            process = start(server, path, tmp_path / "run")
            assert until(process, server, at)
            process.send_signal(number)
            code, _, err = ended(process)
            assert code == 130, err
            assert "Interrupted" in err
            assert "Traceback" not in err
        log = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
        assert json.loads(log[-1])["reason"] == "interrupted"
        code, _, err = ended(start(server, path, tmp_path / "run"))
        assert code == 0, err
        assert server.stats["duplicates"] <= 4 * CONCURRENCY
