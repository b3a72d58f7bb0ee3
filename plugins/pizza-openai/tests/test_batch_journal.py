# SPDX-License-Identifier: Apache-2.0
"""The journal: what was handed over, found again; one program at a time; damage is said."""

import asyncio
import sqlite3
import stat
from contextlib import asynccontextmanager

import pytest
from pizza_openai.batch_clock import SystemClock
from pizza_openai.batch_journal import KEPT_S, Journal

from pizza.errors import CacheError
from pizza.testing.clock import ManualClock


@asynccontextmanager
async def opened(path, clock=None):
    journal = Journal(path, clock or SystemClock())
    try:
        yield journal
    finally:
        await journal.aclose()


async def tags(journal, *keys):
    return [entry.tag for entry in await journal.find(keys)]


async def test_every_step_is_found_by_the_next_program(tmp_path):
    path = tmp_path / "folder" / "journal.sqlite"
    steps = [
        (lambda j: j.plan("t", ["a", "b"]), (None, None)),
        (lambda j: j.uploaded("t", "file-1"), ("file-1", None)),
        (lambda j: j.created("t", "batch_1"), ("file-1", "batch_1")),
    ]
    for step, (file, batch) in steps:
        async with opened(path) as journal:
            await step(journal)
        async with opened(path) as journal:
            (entry,) = await journal.find(["b", "z"])
            assert (entry.tag, entry.file, entry.batch) == ("t", file, batch)
            assert entry.keys == {"a", "b"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_request_belongs_to_its_last_batch(tmp_path):
    async with opened(tmp_path / "j") as journal:
        await journal.plan("one", ["a", "b"])
        await journal.plan("two", ["b", "c"])
        assert await tags(journal, "a") == ["one"]
        assert await tags(journal, "b") == ["two"]
        await journal.forget_lines("two", ["b"])
        assert await tags(journal, "b") == []
        await journal.forget("one")
        assert await tags(journal, "a", "c") == ["two"]


async def test_thousands_of_requests_are_found(tmp_path):
    keys = [f"key-{n}" for n in range(5000)]
    async with opened(tmp_path / "j") as journal:
        await journal.plan("t", keys)
        (entry,) = await journal.find(keys[::-1])
        assert entry.keys == set(keys)
        await journal.forget_lines("t", keys[1:])
        (entry,) = await journal.find(keys)
        assert entry.keys == {"key-0"}


async def test_batches_whose_files_are_gone_are_forgotten(tmp_path):
    clock = ManualClock()
    async with opened(tmp_path / "j", clock) as journal:
        await journal.plan("old", ["a"])
        await clock.advance(10)
        await journal.plan("young", ["b"])
    await clock.advance(KEPT_S - 5)
    async with opened(tmp_path / "j", clock) as journal:
        assert await tags(journal, "a", "b") == ["young"]


@pytest.mark.parametrize("kept", [True, False])
async def test_only_one_is_alone_at_a_time(tmp_path, kept):
    path = tmp_path / "j" if kept else None
    order = []

    async def one(journal, name):
        async with journal.alone():
            order.append(f"{name} comes")
            for _ in range(20):
                await asyncio.sleep(0)
            order.append(f"{name} goes")

    async with opened(path) as first, opened(path) as second:
        journals = (first, second) if kept else (first, first)
        async with asyncio.TaskGroup() as group:
            for number, journal in enumerate(journals):
                group.create_task(one(journal, number))
    assert [step.split()[1] for step in order] == ["comes", "goes"] * 2


async def test_waiting_in_vain_leaves_no_lock(tmp_path):
    async with opened(tmp_path / "j") as first, opened(tmp_path / "j") as second:
        async with first.alone():
            waits = asyncio.create_task(second.alone().__aenter__())
            for _ in range(100):
                await asyncio.sleep(0)
            waits.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waits
        async with second.alone():
            pass
        async with first.alone():
            pass


async def test_a_file_of_something_else_is_left_alone(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to look like one" * 10)
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    for path in (text, other, tmp_path):
        async with opened(path) as journal:
            with pytest.raises(CacheError, match="the journal of batches"):
                await journal.find(["a"])
    assert text.read_text().startswith("not a database")
