# SPDX-License-Identifier: Apache-2.0
"""What was handed over, in a small file: a program that starts again finds its batches.

A batch is written down before it exists (its tag and the keys of its requests), then with the id
of its uploaded file, then with its own id. The tag is also in the file's name and in the batch's
metadata, so that a crash between a call and its record can be made good by asking the server.

Two programs on one journal hand over one after the other, never at the same time: otherwise both
would find a request missing, and both would pay for it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pizza.errors import CacheError
from pizza.worker import Worker
from pizza_openai.batch_clock import Clock

T = TypeVar("T")

KEPT_S = 29 * 24 * 3600.0
"""How long a batch is remembered: OpenAI keeps the files of a batch for 30 days."""

_APPLICATION_ID = 0x70697A62  # "pizb"
_VERSION = 1
_SCHEMA = (
    "CREATE TABLE batches (tag TEXT PRIMARY KEY, created REAL NOT NULL, file TEXT, batch TEXT)",
    "CREATE TABLE lines (key TEXT PRIMARY KEY, tag TEXT NOT NULL REFERENCES batches (tag))",
    "CREATE INDEX lines_of_batch ON lines (tag)",
    f"PRAGMA application_id={_APPLICATION_ID}",
    f"PRAGMA user_version={_VERSION}",
)
_MARKS = 500  # values of one IN (...), below every limit of SQLite
_LOCK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A batch as it was written down.

    Attributes:
        tag: Our own name for it.
        created: When it was planned, seconds since the epoch.
        file: Id of its input file, if it is known to be uploaded.
        batch: Its id, if it is known to exist.
        keys: All requests that are still looked for in it.
    """

    tag: str
    created: float
    file: str | None
    batch: str | None
    keys: frozenset[str]


class Journal:
    """The file.

    Args:
        path: Where it is; ``None`` = in memory only.
        clock: Tells the time and waits.
    """

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._worker = Worker("pizza-openai-journal")
        self._connection: sqlite3.Connection | None = None
        self._lock: sqlite3.Connection | None = None
        self._mine = asyncio.Lock()

    # --- what is asked of it ------------------------------------------------------------------

    async def find(self, keys: Collection[str]) -> list[Entry]:
        """The batches that hold some of these requests."""

        def read(connection: sqlite3.Connection) -> list[Entry]:
            tags: set[str] = set()
            for some in _portions(keys):
                rows = connection.execute(
                    f"SELECT DISTINCT tag FROM lines WHERE key IN ({_marks(some)})",  # noqa: S608
                    some,
                )
                tags.update(tag for (tag,) in rows)
            return [_entry(connection, tag) for tag in sorted(tags)]

        return await self._do(read)

    async def plan(self, tag: str, keys: Sequence[str]) -> None:
        """A batch of these requests is about to be made."""
        now = self._clock.time()

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO batches VALUES (?, ?, NULL, NULL)", (tag, now))
            connection.executemany(
                "INSERT INTO lines VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET tag=excluded.tag",
                ((key, tag) for key in keys),
            )

        await self._do(write)

    async def uploaded(self, tag: str, file: str) -> None:
        """Its input file is at the server."""
        await self._set("UPDATE batches SET file=? WHERE tag=?", (file, tag))

    async def created(self, tag: str, batch: str) -> None:
        """It exists."""
        await self._set("UPDATE batches SET batch=? WHERE tag=?", (batch, tag))

    async def forget(self, tag: str) -> None:
        """It does not exist, or no longer."""
        await self._do(lambda connection: _forget(connection, [tag]))

    async def forget_lines(self, tag: str, keys: Collection[str]) -> None:
        """These requests got no answer from it: they are to be asked again."""

        def write(connection: sqlite3.Connection) -> None:
            for some in _portions(keys):
                connection.execute(
                    f"DELETE FROM lines WHERE tag=? AND key IN ({_marks(some)})",  # noqa: S608
                    [tag, *some],
                )

        await self._do(write)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """While this is open, no other program with this journal is inside of such a block."""
        async with self._mine:
            try:
                while not await self._worker.run(self._try_lock):
                    await self._clock.sleep(_LOCK_S)
                yield
            finally:
                # Also when the wait was cancelled: the thread may just have got the lock.
                await self._worker.run(self._unlock)

    async def aclose(self) -> None:
        """Close the file and end the thread."""
        await self._worker.run(self._close)
        await self._worker.aclose()

    # --- on the thread ------------------------------------------------------------------------

    async def _set(self, statement: str, values: tuple[str, str]) -> None:
        await self._do(lambda connection: connection.execute(statement, values) and None)

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def run(_: threading.Event) -> T:
            try:
                if self._connection is None:
                    self._connection = _open(self._path, self._clock.time() - KEPT_S)
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    return work(self._connection)
            except (sqlite3.Error, OSError) as error:
                raise _unusable(self._path, error) from error

        return await self._worker.run(run)

    def _try_lock(self, _: threading.Event) -> bool:
        if self._path is None:
            return True
        try:
            if self._lock is None:
                # A file of its own: the journal itself is written to while the lock is held.
                path = self._path.with_name(f"{self._path.name}.lock")
                _private(path)
                self._lock = sqlite3.connect(path, timeout=0, isolation_level=None)
            self._lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                return False
            raise _unusable(self._path, error) from error
        except (sqlite3.Error, OSError) as error:
            raise _unusable(self._path, error) from error
        return True

    def _unlock(self, _: threading.Event) -> None:
        if self._lock is not None and self._lock.in_transaction:
            self._lock.execute("ROLLBACK")

    def _close(self, _: threading.Event) -> None:
        for connection in (self._connection, self._lock):
            if connection is not None:
                connection.close()


def _open(path: Path | None, since: float) -> sqlite3.Connection:
    if path is not None:
        _private(path)
    connection = sqlite3.connect(path or ":memory:", timeout=30.0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        for statement in _SCHEMA if not tables else ():
            connection.execute(statement)
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        _check(application, version)
        old = connection.execute("SELECT tag FROM batches WHERE created < ?", (since,)).fetchall()
        _forget(connection, [tag for (tag,) in old])
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _check(application: int, version: int) -> None:
    if (application, version) != (_APPLICATION_ID, _VERSION):
        raise sqlite3.DatabaseError("it is a database of something else, or of another version")


def _private(path: Path) -> None:
    # Names of batches are nobody else's business; SQLite itself would let everybody read them.
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _entry(connection: sqlite3.Connection, tag: str) -> Entry:
    created, file, batch = connection.execute(
        "SELECT created, file, batch FROM batches WHERE tag=?", (tag,)
    ).fetchone()
    keys = connection.execute("SELECT key FROM lines WHERE tag=?", (tag,))
    return Entry(
        tag=tag, created=created, file=file, batch=batch, keys=frozenset(key for (key,) in keys)
    )


def _forget(connection: sqlite3.Connection, tags: Iterable[str]) -> None:
    for tag in tags:
        connection.execute("DELETE FROM lines WHERE tag=?", (tag,))
        connection.execute("DELETE FROM batches WHERE tag=?", (tag,))


def _portions(keys: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(keys)
    while some := list(islice(rest, _MARKS)):
        yield some


def _marks(values: Sequence[str]) -> str:
    return ",".join("?" * len(values))


def _unusable(path: Path | None, error: Exception) -> CacheError:
    return CacheError(
        f"the journal of batches {path} cannot be used: {error}. Name another file, e.g. "
        "--backend-option journal=batches.sqlite, or 'off' to go without (a run that is "
        "interrupted then pays for its batches again)."
    )
