# SPDX-License-Identifier: Apache-2.0
"""A program that is killed goes on with its batches when it is started again."""

import json
import subprocess
import sys
from contextlib import contextmanager

import pytest
from pizza_embedded.server.batch_options import BatchOptions
from support.server import served_model

ASKING = """
import asyncio, json, sys
import pizza
from pizza.completion import Generation, Request
from pizza.prompt import Prompt

async def main(model, url, journal):
    options = {"gather_s": 0.2, "poll_s": 0.05, "poll_max_s": 0.05}
    options = {**options, "journal": journal} if "batch" in model else {}
    async with pizza.Session(model, base_url=url, backend_options=options) as session:
        async def ask(n):
            prompt = Prompt.of(f"Repeat: number {n}")
            made = await session.submit(Request(prompt=prompt, generation=Generation(max_tokens=6)))
            return [made.text, made.logprobs.tolist()]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(n)) for n in range(12)]
        print(json.dumps([task.result() for task in tasks]))

asyncio.run(main(*sys.argv[1:]))
"""

EXPLAINING = """
import asyncio, json, sys
import pizza

async def main(model, url, folder):
    options = {"gather_s": 0.1, "poll_s": 0.05, "poll_max_s": 0.05, "journal": folder + "/journal"}
    options = options if "batch" in model else {}
    cache = folder + "/answers" if "batch" in model else None
    async with pizza.Session(
        model, base_url=url, backend_options=options, cache=cache
    ) as session:
        found = await session.attribute(
            "Bob has 5 green pears. How many pears does Bob have?",
            method="kernel-shap", budget=40, evidence="complete",
        )
        print(json.dumps(found.scores.tolist()))

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def started(program, model, server, path):
    command = [sys.executable, "-c", program, model, server.base_url, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def finished(program, model, server, path):
    with started(program, model, server, path) as process:
        out, _ = process.communicate()
        assert process.returncode == 0
    return json.loads(out)


def wait_until(condition, process):
    while not condition():
        assert running(process), "the program ended before it could be killed"


def running(process):
    """Whether the program runs; gives it, and the server's thread, a moment to do so."""
    try:
        process.wait(0.01)
    except subprocess.TimeoutExpired:
        return True
    return False


@pytest.mark.parametrize("step", ["upload", "create", "retrieve", "content"])
def test_killed_at_any_step_nothing_is_asked_twice(tmp_path, step):
    """The call takes effect at the server, its answer never comes, and the program is killed."""
    with served_model(batches=BatchOptions.parse(f"delay=0.1,hang={step}")) as server:
        with started(ASKING, "openai-batch:embedded", server, tmp_path / "journal") as first:
            # The first request of a session goes alone; what hangs is its batch.
            wait_until(lambda: server.stats["hung"].get(step), first)
        assert first.returncode == -9
        before = server.stats["batch_calls"]
        ours = finished(ASKING, "openai-batch:embedded", server, tmp_path / "journal")
        stats = server.stats
        assert stats["batch_lines"] == 12
        assert stats["duplicates"] == 0
        assert stats["batch_calls"]["upload"] == stats["batch_calls"]["create"]
        assert stats["batches"] == {"completed": stats["batch_calls"]["create"]}
        assert before["upload"] >= 1
        assert ours == finished(ASKING, "openai:embedded", server, tmp_path)


def test_killed_while_a_batch_of_many_is_under_way(tmp_path):
    with served_model(batches=BatchOptions.parse("delay=1")) as server:
        with started(ASKING, "openai-batch:embedded", server, tmp_path / "journal") as first:
            # The first request's batch has ended, and that of the others is being looked at.
            wait_until(lambda: server.stats["batch_calls"].get("create", 0) == 2, first)
            seen = server.stats["batch_calls"]["retrieve"]
            wait_until(lambda: server.stats["batch_calls"]["retrieve"] > seen, first)
        ours = finished(ASKING, "openai-batch:embedded", server, tmp_path / "journal")
        assert server.stats["batch_lines"] == 12
        assert server.stats["duplicates"] == 0
        assert server.stats["batch_calls"]["create"] == 2
        assert ours == finished(ASKING, "openai:embedded", server, tmp_path)


@pytest.mark.slow
def test_killed_again_and_again_the_scores_are_those_of_an_undisturbed_run(tmp_path):
    with served_model(batches=BatchOptions.parse("delay=0.3")) as server:
        kills = 0
        done = None
        while done is None:
            calls = sum(server.stats["batch_calls"].values())
            with started(EXPLAINING, "openai-batch:embedded", server, tmp_path) as process:
                while running(process):
                    if sum(server.stats["batch_calls"].values()) > calls + 2 + kills:
                        process.kill()
                        process.wait()
                        kills += 1
                        break
                if process.returncode == 0:
                    done = json.loads(process.stdout.read())
        stats = server.stats
        assert kills >= 2
        assert stats["duplicates"] == 0
        assert stats["batch_lines"] == stats["distinct_bodies"]
        assert done == finished(EXPLAINING, "openai:embedded", server, tmp_path)


def test_two_programs_with_one_journal_ask_once(tmp_path):
    with served_model(batches=BatchOptions.parse("delay=0.2")) as server:
        path = tmp_path / "journal"
        with (
            started(ASKING, "openai-batch:embedded", server, path) as first,
            started(ASKING, "openai-batch:embedded", server, path) as second,
        ):
            results = [json.loads(process.communicate()[0]) for process in (first, second)]
            assert first.returncode == second.returncode == 0
        assert results[0] == results[1]
        assert server.stats["batch_lines"] == 12
        assert server.stats["duplicates"] == 0
