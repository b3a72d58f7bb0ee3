# SPDX-License-Identifier: Apache-2.0
"""Answers in one SQLite file that several processes may share and that survives a crash.

One thread reads and one writes; the event loop never touches the file. Requests that wait at the
same moment go into *one SQL statement*, which is one transaction (group commit) and also one
release of the interpreter's lock: a statement per row would wait for the lock once per row when
the event loop is busy.

WAL with ``synchronous=NORMAL``: what `put` acknowledged survives a crash of the process (SIGKILL
included). After a power cut the last answers may be missing; the file is sound.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pizza.abc import ResponseCache
from pizza.caches import CacheWarning
from pizza.errors import CacheError

_MAGIC = b"SQLite format 3\0"
_APPLICATION_ID = 0x70697A7A  # "pizz"
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    crc INTEGER NOT NULL,
    value BLOB NOT NULL
)
"""
_PAGE_BYTES = 32768
"""Seven answers of about 4 KB fit on one page; what does not fit on a small page is wasted."""
_GROUP = 256
_MOST = 2048
"""Entries of one statement: SQLite takes 32,766 values."""
_BUSY_S = 30.0


@dataclass(frozen=True, slots=True)
class _Job:
    """Entries to read or to write, and who waits for it."""

    future: asyncio.Future[Any]
    entries: Mapping[bytes, bytes]


class _Damaged:
    """What a reader gives for an entry that cannot be read."""


_DAMAGED = _Damaged()
_Batch = Callable[[sqlite3.Connection, Sequence[_Job]], Mapping[bytes, Any]]
"""Reads or writes the entries of all jobs, and gives what was read."""


class SqliteCache(ResponseCache):
    """A response cache in one file.

    The file is opened on first use, by two threads that end with `aclose`.

    Args:
        path: The file; it and its folder are made when they do not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._reader = _Thread("pizza-cache-reader", self.path, _read)
        self._writer = _Thread("pizza-cache-writer", self.path, _write)

    async def get(self, key: str) -> bytes | None:
        """See `ResponseCache.get`.

        Raises:
            CacheError: The file cannot be used.
        """
        return (await self._read((key,))).get(key)

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See `ResponseCache.get_many`: one statement.

        Raises:
            CacheError: The file cannot be used.
        """
        return await self._read(keys)

    async def _read(self, keys: Sequence[str]) -> dict[str, bytes]:
        blobs = [_blob(key) for key in keys]
        read: Mapping[bytes, Any] = await self._reader.do(dict.fromkeys(blobs, b""))
        found: dict[str, bytes] = {}
        for key, blob in zip(keys, blobs, strict=True):
            value = read.get(blob)
            if isinstance(value, _Damaged):
                warnings.warn(
                    f"the answer {key[:12]} in {self.path} is damaged; it is asked again.",
                    CacheWarning,
                    stacklevel=2,
                )
            elif value is not None:
                found[key] = value
        return found

    async def put(self, key: str, value: bytes) -> None:
        """See `ResponseCache.put`. Cancelling the caller does not stop the write.

        Raises:
            CacheError: The file cannot be written.
        """
        await self._writer.do({_blob(key): value})

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        """See `ResponseCache.put_many`: one statement, all or nothing.

        Raises:
            CacheError: The file cannot be written.
        """
        await self._writer.do({_blob(key): value for key, value in values.items()})

    async def aclose(self) -> None:
        """Write what is pending, end both threads, close the file."""
        await self._writer.aclose()
        await self._reader.aclose()


class _Thread:
    """One connection on one thread, which takes all jobs that wait as one batch."""

    def __init__(self, name: str, path: Path, batch: _Batch) -> None:
        self._name = name
        self._path = path
        self._batch = batch
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    async def do(self, entries: Mapping[bytes, bytes]) -> Any:
        if self._closed:
            raise CacheError(f"the cache {self._path} is closed.")
        if self._thread is None:
            # A daemon: a program that forgot to close its session can still end. Nothing is lost
            # by it, because only what is committed was acknowledged.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(future, entries))
        return await future

    async def aclose(self) -> None:
        self._closed = True
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)

    # --- on the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        last = False
        while not last:
            jobs, last = self._take()
            if not jobs:
                continue
            result: Any
            try:
                if connection is None:
                    connection = connect(self._path)
                result = self._batch(connection, jobs)
            except (sqlite3.Error, OSError) as error:
                result = _unusable(self._path, error)
            except CacheError as error:
                result = error
            _deliver(jobs, result)
        if connection is not None:
            connection.close()

    def _take(self) -> tuple[list[_Job], bool]:
        jobs: list[_Job] = []
        entries = 0
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            entries += len(job.entries)
            if entries >= _GROUP:
                return jobs, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, False
        return jobs, True


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, and make it if it is not there.

    Raises:
        CacheError: It is not a response cache, or one of a later version.
        sqlite3.Error: It cannot be used.
        OSError: It cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Prompts and answers may be private: nobody else reads a file that we make.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        head = os.read(descriptor, len(_MAGIC))
    finally:
        os.close(descriptor)
    # SQLite itself would overwrite a file that is too short to be anything.
    if head not in (b"", _MAGIC):
        raise CacheError(
            f"the cache {path} cannot be used: it is not an SQLite file. Name another file."
        )
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        _wait_for_wal(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        _check_schema(connection, path)
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables and application == 0:
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
    elif application != _APPLICATION_ID:
        raise CacheError(
            f"{path} is a database of something else. Name another file for the cache."
        )
    elif version != _SCHEMA_VERSION:
        raise CacheError(
            f"the cache {path} has version {version}, and this pizza reads version "
            f"{_SCHEMA_VERSION}. Name another file, or delete it and pay for its answers again."
        )


def _wait_for_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; several processes that open a new file at once get in each other's way."""
    for last in (False,) * 50 + (True,):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            # SQLite does not wait here, whatever the timeout is.
            if last:
                raise
            threading.Event().wait(0.02)
        else:
            return


def _blob(key: str) -> bytes:
    try:
        return bytes.fromhex(key) if len(key) == 64 else b"text:" + key.encode()
    except ValueError:
        return b"text:" + key.encode()


def _checksum(key: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key))


def _read(connection: sqlite3.Connection, jobs: Sequence[_Job]) -> Mapping[bytes, Any]:
    keys = list({key: None for job in jobs for key in job.entries})
    found: dict[bytes, Any] = {}
    try:
        for first in range(0, len(keys), _MOST):
            found.update(_select(connection, keys[first : first + _MOST]))
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        # A page is broken: the entries on other pages can still be read.
        for key in keys:
            try:
                found.update(_select(connection, [key]))
            except sqlite3.DatabaseError:
                found[key] = _DAMAGED
    return found


def _select(connection: sqlite3.Connection, keys: list[bytes]) -> dict[bytes, Any]:
    # Padded to a power of two, so that there are few different statements to prepare.
    places = 1 << (len(keys) - 1).bit_length()
    marks = ",".join("?" * places)
    rows = connection.execute(
        f"SELECT key, crc, value FROM answers WHERE key IN ({marks})",  # noqa: S608 - only marks
        keys + [None] * (places - len(keys)),
    ).fetchall()
    return {
        key: value if isinstance(value, bytes) and _checksum(key, value) == crc else _DAMAGED
        for key, crc, value in rows
    }


def _write(connection: sqlite3.Connection, jobs: Sequence[_Job]) -> Mapping[bytes, Any]:
    rows = list({key: value for job in jobs for key, value in job.entries.items()}.items())
    if len(rows) <= _MOST:
        _insert(connection, rows)
        return {}
    connection.execute("BEGIN IMMEDIATE")
    try:
        for first in range(0, len(rows), _MOST):
            _insert(connection, rows[first : first + _MOST])
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return {}


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[bytes, bytes]]) -> None:
    marks = ",".join(["(?,?,?)"] * len(rows))
    values: list[Any] = []
    for key, value in rows:
        values += (key, _checksum(key, value), value)
    connection.execute(
        f"INSERT INTO answers (key, crc, value) VALUES {marks} "  # noqa: S608 - only marks
        "ON CONFLICT (key) DO UPDATE SET crc=excluded.crc, value=excluded.value",
        values,
    )


def _unusable(path: Path, error: Exception) -> CacheError:
    failure = CacheError(
        f"the cache {path} cannot be used: {error}. Name another file, make room or grant access, "
        "or delete it if it is damaged (its answers are then paid for again)."
    )
    failure.__cause__ = error
    return failure


def _deliver(jobs: Sequence[_Job], result: Any) -> None:
    loops = {job.future.get_loop() for job in jobs}
    for loop in loops:
        futures = [job.future for job in jobs if job.future.get_loop() is loop]
        try:
            loop.call_soon_threadsafe(_resolve, futures, result)
        except RuntimeError:
            # The loop is gone, and with it everybody who waited.
            continue


def _resolve(futures: Sequence[asyncio.Future[Any]], result: Any) -> None:
    for future in futures:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
