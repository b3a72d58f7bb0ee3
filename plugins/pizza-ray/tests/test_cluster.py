# SPDX-License-Identifier: Apache-2.0
"""Runs on a real Ray cluster of three nodes, in a network of their own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="installed with the extra 'ray'")
pytest.importorskip("pyarrow", reason="installed with the extra 'bulk'")

HERE = Path(__file__).resolve().parent
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(180)]


class Arena:
    """The process with the cluster."""

    def __init__(self, errors):
        from ray_nodes import isolated

        paths = [str(HERE.parent / "src"), str(HERE / "support" / "gpu_echo")]
        paths += filter(None, [os.environ.get("PYTHONPATH")])
        self.process = subprocess.Popen(
            isolated([sys.executable, str(HERE / "support" / "arena.py")]),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        self.address = self._read()["address"]

    def do(self, scenario, **options):
        self.process.stdin.write(json.dumps({"scenario": scenario, **options}) + "\n")
        self.process.stdin.flush()
        found = self._read()
        assert "crashed" not in found, found["crashed"]
        return found

    def _read(self):
        # Ray writes to standard output, too.
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise AssertionError("the arena ended")

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    with (tmp_path_factory.mktemp("arena") / "errors").open("w+") as errors:
        made = Arena(errors)
        yield made
        made.stop()


def same(found, expected):
    """Equal to the last bit, each row once."""
    assert len(found["ids"]) == len(set(found["ids"]))
    assert found["rows"] == expected["rows"]


def worst_excess(times, rate, burst):
    """By how many requests any window holds more than ``rate * (length + burst)``."""
    times = sorted(times)
    return max(
        j - i + 1 - rate * (times[j] - times[i] + burst)
        for i in range(len(times))
        for j in range(i, len(times))
    )


def sent_twice(seen):
    return len(seen) - len({body for _, body, _ in seen})


def test_results_are_those_of_one_process_and_the_rate_holds_over_all_workers(arena):
    found = arena.do("equal", rpm=2400, n=24)
    assert found["local"]["code"] == found["spread"]["code"] == 0, found["spread"]
    same(found["found"], found["expected"])
    assert len(found["seen"]) == found["undisturbed"] == found["spread"]["spent"]["calls"]
    # Limits without a burst of their own are told one second's worth.
    assert worst_excess([at for at, _, _ in found["seen"]], 40.0, 1.0) <= 1.0
    assert found["leaked"] == []
    assert not [name for name in found["files"] if name.endswith(".tmp")]
    events = [json.loads(line) for line in found["log"].splitlines()]
    assert sum(e["rows"] for e in events if e["event"] == "PartWritten") == 24
    assert sum(e["event"] == "RowFinished" for e in events) == 24
    assert (events[0]["event"], events[-1]["event"]) == ("RunOpened", "RunEnded")


def test_a_cap_holds_exactly_over_all_workers(arena):
    found = arena.do("cap", most=150)
    assert found["first"]["code"] == found["second"]["code"] == 5, found
    assert found["sent"] == found["after"] == 150
    assert found["first"]["spent"]["calls"] == found["second"]["spent"]["calls"] == 150
    assert "max_calls=150" in found["first"]["message"]


def test_a_node_that_is_killed_costs_what_was_in_flight_there(arena):
    found = arena.do("node", n=30, at=80)
    assert found["reached"]
    assert found["spread"]["code"] == 0, found["spread"]
    same(found["found"], found["expected"])
    assert sent_twice(found["seen"]) <= found["flying"] <= 24
    assert len(found["seen"]) <= found["undisturbed"] + found["flying"]


def test_a_run_that_is_killed_goes_on_with_either_engine(arena):
    found = arena.do("driver", n=40, at=[90, 200])
    assert [reached for reached, _ in found["kills"]] == [True, True], found
    assert found["last"]["code"] == 0, found["last"]
    same(found["found"], found["expected"])
    seen = found["seen"]
    for _, killed in found["kills"]:
        # What was answered half a second before a kill is on the disk, whatever happens then.
        known = {body for at, body, _ in seen if at + 0.7 < killed}
        assert not [at for at, body, _ in seen if at > killed and body in known]
    assert sent_twice(seen) <= 24 * len(found["kills"])
    # A worker that goes on for a moment counts as well.
    assert len(seen) <= found["last"]["spent"]["calls"] <= len(seen) + 24 * len(found["kills"])


@pytest.mark.torch  # its backend says that it needs torch, which is what asks for a GPU
def test_one_gpu_for_each_worker_and_a_deadly_row_fails_alone(arena):
    found = arena.do("gpus")
    assert found["done"]["code"] == 4, found["done"]
    assert (found["done"]["done"], found["done"]["failed"]) == (11, 1)
    (failure,) = map(json.loads, found["failures"].splitlines())
    assert failure["id"] == "5"
    assert "3 workers died" in failure["message"]
    homes = {}
    for output in found["found"].values():
        node, device, process = output.split()
        assert re.fullmatch(r"\d+", device)
        homes.setdefault(process, set()).add((node, device))
    assert all(len(places) == 1 for places in homes.values())


def test_a_cluster_that_is_started_here_is_on_loopback_and_ends_with_the_run(arena):
    found = arena.do("own")
    assert found["reached"], found["done"]
    assert (found["during"], found["after"]) == (1, 0)
    # 127.0.0.1, as itself and as IPv6 writes it.
    if found["alone"]:
        assert set(found["listening"]) <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert (found["done"]["code"], found["done"]["done"]) == (0, 6), found["done"]


def test_sigterm_ends_it_in_good_order_and_what_is_known_is_written(arena):
    found = arena.do("interrupt", n=40, at=150)
    assert found["reached"]
    assert found["first"]["code"] == 130, found["first"]
    assert "Interrupted" in found["first"]["err"]
    assert "SIGTERM received" not in found["first"]["err"]
    assert found["reason"] == "interrupted"
    assert found["kept"] > 0
    assert found["last"]["code"] == 0, found["last"]
    assert len(found["found"]["ids"]) == len(set(found["found"]["ids"])) == 40
    assert sent_twice(found["seen"]) <= 50


def test_a_wrong_key_opens_the_circuit_of_all_workers(arena):
    found = arena.do("wrong_key")
    assert found["first"]["code"] == 3, found["first"]
    assert (found["first"]["reason"], found["first"]["failed"]) == ("circuit", 0)
    assert found["sent"] <= 50
    assert (found["last"]["code"], found["last"]["done"]) == (0, 30), found["last"]


def test_a_coordinator_that_dies_ends_the_run_and_nothing_is_lost(arena):
    found = arena.do("coordinator", n=40, at=120)
    assert found["reached"]
    assert found["first"]["code"] != 0
    assert "coordinator" in found["first"]["err"]
    assert "goes on from here" in found["first"]["err"]
    assert "Traceback" not in found["first"]["err"]
    assert found["last"]["code"] == 0, found["last"]
    assert len(found["found"]) == 40
    assert sent_twice(found["seen"]) <= 20
    assert len(found["seen"]) <= found["last"]["spent"]["calls"]


def test_a_run_without_a_place_for_a_worker_says_what_is_needed(arena):
    found = arena.do("nowhere")
    assert found["done"]["code"] == 2, found["done"]
    assert "there is no worker" in found["done"]["err"]
    assert "'num_cpus': 64" in found["done"]["err"]
    assert found["sent"] == 0


def test_workers_that_cannot_write_stop_the_run_and_it_goes_on_later(arena):
    found = arena.do("no_room", n=40, at=60)
    assert found["reached"]
    assert found["first"]["code"] == 1, found["first"]
    assert found["first"]["reason"] == "storage"
    assert "Make room" in found["first"]["message"]
    assert found["last"]["code"] == 0, found["last"]
    assert len(found["found"]) == 40
    assert sent_twice(found["seen"]) <= 20


def test_a_killed_run_that_had_started_the_cluster_goes_on_when_its_actors_are_gone(arena):
    # In a network of its own nobody reaps orphans, as in many containers, and Ray takes its dead
    # node for alive: the coordinator ends by itself, and the next run waits for that.
    found = arena.do("own_killed", n=30, at=60)
    assert found["reached"]
    assert found["last"]["code"] == 0, found["last"]
    assert found["left"] == 0
    assert sent_twice(found["seen"]) <= 50
    assert len(found["seen"]) <= found["last"]["spent"]["calls"]
