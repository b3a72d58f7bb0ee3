# SPDX-License-Identifier: Apache-2.0
"""Engines: the local one, others that are given as objects, and what processes share."""

import asyncio
import json
import sys

import pytest

import pizza
from pizza import bulk
from pizza.bulk.engine import engine_of
from pizza.bulk.local_engine import LocalEngine
from pizza.bulk.tally import TallyFile
from pizza.errors import ConfigError
from pizza.events import PartWritten, RunEnded
from pizza.limits import Spent

pq = pytest.importorskip("pyarrow.parquet", reason="installed with the extra 'bulk'")


class Refusing(bulk.Engine):
    """Makes no run."""

    def check(self, settings):
        raise ConfigError(f"not with {settings.model}")

    async def carry_out(self, work):
        raise AssertionError("was refused")


class Backwards(bulk.Engine):
    """Fails every second row, and leaves the others for the next run."""

    async def carry_out(self, work):
        work.opened("nobody", [])
        async for pending in work.rows():
            if pending.place % 2:
                work.failed(pending, pizza.PizzaError(f"odd: {pending.row.id}"))


async def test_an_engine_may_refuse_a_run_before_anything_is_made(tmp_path):
    with pytest.raises(ConfigError, match="not with embedded"):
        await bulk.run([{"prompt": "a"}], tmp_path / "run", engine=Refusing())
    assert not (tmp_path / "run").exists()


async def test_the_run_keeps_what_is_one_whatever_the_engine(tmp_path):
    rows = [{"id": n, "prompt": f"Eva has {n} hats."} for n in range(4)]
    events = []
    summary = await bulk.run(
        rows, tmp_path / "run", engine=Backwards(), circuit=0, on_event=events.append
    )
    assert (summary.done, summary.failed, summary.reason) == (0, 2, "finished")
    lines = (tmp_path / "run" / "failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["1", "3"]
    assert isinstance(events[-1], RunEnded)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["backend"] == "nobody"


@pytest.mark.parametrize("name", [None, "local"])
def test_the_local_engine_is_the_default(name):
    assert type(engine_of(name)) is LocalEngine


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("dask", "known are local, ray"), ("local:x=1", "does not take this"), (5, "not int")],
)
def test_other_names_are_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        engine_of(wrong)


def test_an_engine_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pizza_ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'pizza-attribution\[ray\]'"):
        engine_of("ray")


async def test_a_part_holds_every_result_that_comes_while_another_is_written(tmp_path, served):
    rows = [{"id": n, "prompt": f"Box {n}: Eva has {n} hats."} for n in range(9)]
    events = []
    await bulk.run(rows, tmp_path / "run", part_rows=2, on_event=events.append, **served)
    assert sum(e.rows for e in events if isinstance(e, PartWritten)) == 9
    ids = pq.read_table(tmp_path / "run" / "results", columns=["id"]).column("id").to_pylist()
    assert sorted(ids) == [str(n) for n in range(9)]


# --- what processes share -------------------------------------------------------------------------

WRITER = """
import sys, pathlib
from pizza.bulk.tally import TallyFile
from pizza.limits import Spent
tally = TallyFile(pathlib.Path(sys.argv[1]))
print("open", flush=True)
for line in sys.stdin:
    calls = int(line)
    tally.write(Spent(calls=calls, tokens=2 * calls, cost=0.5))
    print(calls, flush=True)
"""


async def writer_of(path):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITER, str(path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert await process.stdout.readline() == b"open\n"
    return process


async def written(process, calls):
    process.stdin.write(b"%d\n" % calls)
    assert await process.stdout.readline() == b"%d\n" % calls


async def test_a_tally_that_is_lent_is_read_while_another_process_writes_it(tmp_path):
    tally = TallyFile(tmp_path / "spent")
    tally.write(Spent(calls=1))
    tally.lend()
    process = await writer_of(tmp_path / "spent")
    for calls in (5, 6):
        await written(process, calls)
        assert tally.spent == Spent(calls=calls, tokens=2 * calls, cost=0.5)
    process.kill()
    await process.wait()
    tally.take_back()
    tally.write(Spent(calls=7))
    tally.close()
    again = TallyFile(tmp_path / "spent")
    assert again.spent == Spent(calls=7)
    again.close()


async def test_nobody_begins_while_a_part_of_an_earlier_run_still_spends(tmp_path, monkeypatch):
    with bulk.directory.RunDirectory(tmp_path / "run") as directory:
        directory.settle({})
        directory.tally.lend()
        process = await writer_of(tmp_path / "run" / "spent")
    # The main process is gone: its lock is free, and the other one goes on.
    monkeypatch.setattr("pizza.bulk.tally._ORPHAN_S", 0.0)
    with pytest.raises(ConfigError, match="another one of it goes on"):
        bulk.directory.RunDirectory(tmp_path / "run")
    process.kill()
    await process.wait()
    bulk.directory.RunDirectory(tmp_path / "run").close()
