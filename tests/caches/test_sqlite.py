# SPDX-License-Identifier: Apache-2.0
import asyncio
import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading

import pytest

from pizza.caches import CacheWarning
from pizza.caches.sqlite import SqliteCache
from pizza.errors import CacheError


def key(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "answers.sqlite"


@pytest.fixture
async def cache(path):
    cache = SqliteCache(path)
    yield cache
    await cache.aclose()


def edit(path, statement, *values):
    connection = sqlite3.connect(path)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


async def test_what_was_put_is_found_and_can_be_replaced(cache):
    assert await cache.get(key(1)) is None
    await cache.put(key(1), b"first")
    await cache.put(key(1), b"second")
    assert await cache.get(key(1)) == b"second"


async def test_keys_of_any_kind_are_kept_apart(cache):
    names = ["", "a", "ä", "A" * 64, "z" * 64, key(1), key(1).upper(), key(1) + "0"]
    for name in names[:6] + names[7:]:
        await cache.put(name, name.encode())
    for name in names[:6] + names[7:]:
        assert await cache.get(name) == name.encode()


async def test_an_empty_value_is_a_value(cache):
    await cache.put(key(1), b"")
    assert await cache.get(key(1)) == b""


async def test_another_session_finds_it(path):
    for number in range(3):
        cache = SqliteCache(path)
        await cache.put(key(number), bytes(number))
        assert [len(await cache.get(key(n))) for n in range(number + 1)] == list(range(number + 1))
        await cache.aclose()
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # no WAL left behind


async def test_many_at_once(cache):
    async with asyncio.TaskGroup() as group:
        for number in range(2000):
            group.create_task(cache.put(key(number), bytes([number % 256]) * 50))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(cache.get(key(number))) for number in range(2000)]
    assert [task.result()[:1] for task in tasks] == [bytes([n % 256]) for n in range(2000)]


async def test_the_same_key_several_times_in_one_group(cache):
    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(cache.put(key(1), bytes([number])))
    assert await cache.get(key(1)) == bytes([49])


async def test_a_cancelled_caller_does_not_stop_the_write(path):
    cache = SqliteCache(path)
    task = asyncio.create_task(cache.put(key(1), b"paid"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await cache.aclose()
    again = SqliteCache(path)
    assert await again.get(key(1)) == b"paid"
    await again.aclose()


async def test_closing_leaves_no_thread(path):
    before = set(threading.enumerate())
    cache = SqliteCache(path)
    assert set(threading.enumerate()) == before  # nothing is opened before it is needed
    await cache.put(key(1), b"x")
    await cache.get(key(1))
    await cache.aclose()
    await cache.aclose()
    names = {thread.name for thread in set(threading.enumerate()) - before}
    assert not any(name.startswith("pizza") for name in names)
    with pytest.raises(CacheError, match="closed"):
        await cache.get(key(1))


async def test_a_file_of_ours_is_for_its_owner_only(cache, path):
    await cache.put(key(1), b"x")
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def spawn(command, **options):
    return subprocess.Popen(command, text=True, **options)


# --- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [b"valuf", b"", "text instead of bytes"])
async def test_a_damaged_entry_is_a_miss_with_a_warning(path, damaged):
    cache = SqliteCache(path)
    await cache.put(key(1), b"value")
    await cache.put(key(2), b"other")
    await cache.aclose()
    edit(path, "UPDATE answers SET value = ? WHERE id = 1", damaged)
    cache = SqliteCache(path)
    with pytest.warns(CacheWarning, match="damaged"):
        assert await cache.get(key(1)) is None
    assert await cache.get(key(2)) == b"other"
    await cache.put(key(1), b"again")
    assert await cache.get(key(1)) == b"again"
    await cache.aclose()


async def test_a_value_under_the_wrong_key_is_damage(path):
    cache = SqliteCache(path)
    await cache.put(key(1), b"value")
    await cache.aclose()
    edit(path, "UPDATE answers SET key = ?", bytes.fromhex(key(2)))
    cache = SqliteCache(path)
    with pytest.warns(CacheWarning):
        assert await cache.get(key(2)) is None
    await cache.aclose()


async def test_a_broken_page_loses_only_what_is_on_it(path):
    cache = SqliteCache(path)
    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(cache.put(key(number), bytes([number]) * 4000))
    await cache.aclose()
    content = bytearray(path.read_bytes())
    at = content.index(bytes([50]) * 4000)
    content[at : at + 100] = bytes(100)
    path.write_bytes(content)
    cache = SqliteCache(path)
    with pytest.warns(CacheWarning):
        found = [await cache.get(key(number)) for number in range(100)]
    assert sum(value is not None for value in found) >= 90
    assert all(value is None or value == bytes([n]) * 4000 for n, value in enumerate(found))
    await cache.aclose()


# --- unusable files ----------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"this is not a database" * 500, b"x"])
async def test_a_file_of_something_else_is_refused_by_name(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    cache = SqliteCache(path)
    with pytest.raises(CacheError, match=r"answers\.sqlite cannot be used"):
        await cache.get(key(1))
    with pytest.raises(CacheError):
        await cache.put(key(1), b"x")
    await cache.aclose()
    assert path.read_bytes() == content


async def test_a_database_of_something_else_is_left_alone(path):
    path.parent.mkdir()
    edit(path, "CREATE TABLE mine (x)")
    cache = SqliteCache(path)
    with pytest.raises(CacheError, match="database of something else"):
        await cache.put(key(1), b"x")
    await cache.aclose()


async def test_a_later_version_is_refused(path, cache):
    await cache.put(key(1), b"x")
    await cache.aclose()
    edit(path, "PRAGMA user_version=99")
    later = SqliteCache(path)
    with pytest.raises(CacheError, match="has version 99"):
        await later.get(key(1))
    await later.aclose()


async def test_a_folder_in_the_place_of_the_file(tmp_path):
    cache = SqliteCache(tmp_path)
    with pytest.raises(CacheError, match="cannot be used"):
        await cache.get(key(1))
    await cache.aclose()


async def test_a_file_that_becomes_usable_is_used(path):
    path.parent.mkdir()
    path.mkdir()
    cache = SqliteCache(path)
    with pytest.raises(CacheError):
        await cache.put(key(1), b"x")
    path.rmdir()
    await cache.put(key(1), b"x")
    assert await cache.get(key(1)) == b"x"
    await cache.aclose()


# --- several processes -------------------------------------------------------------------------

_WRITER = """
import asyncio, hashlib, sys
from pizza.caches.sqlite import SqliteCache

async def main(path, name, n):
    cache = SqliteCache(path)
    async with asyncio.TaskGroup() as group:
        for i in range(n):
            key = hashlib.sha256(f"{name} {i}".encode()).hexdigest()
            group.create_task(cache.put(key, name.encode() * 100))
    await cache.aclose()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_several_processes_share_one_file_from_the_start(path):
    commands = [[sys.executable, "-c", _WRITER, str(path), name, "300"] for name in "abc"]
    processes = [spawn(command) for command in commands]
    assert [await asyncio.to_thread(process.wait, 60) for process in processes] == [0, 0, 0]
    cache = SqliteCache(path)
    for name in "abc":
        for i in range(300):
            assert await cache.get(key(f"{name} {i}")) == name.encode() * 100
    await cache.aclose()


_ENDLESS = """
import asyncio, hashlib, sys
from pizza.caches.sqlite import SqliteCache

async def main(path):
    cache = SqliteCache(path)
    numbers = iter(range(10**9))

    async def worker():
        for i in numbers:
            await cache.put(hashlib.sha256(str(i).encode()).hexdigest(), b"v" * 3000)
            print(i, flush=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(worker())

asyncio.run(main(sys.argv[1]))
"""


async def test_what_was_acknowledged_survives_sigkill(path):
    process = spawn([sys.executable, "-c", _ENDLESS, str(path)], stdout=subprocess.PIPE)
    acknowledged = []
    while len(acknowledged) < 300:
        acknowledged.append(int(process.stdout.readline()))
    process.kill()
    process.wait()
    acknowledged += [int(line) for line in process.stdout.read().split("\n")[:-1] if line]
    process.stdout.close()
    cache = SqliteCache(path)
    for number in acknowledged:
        assert await cache.get(key(number)) == b"v" * 3000
    await cache.aclose()
