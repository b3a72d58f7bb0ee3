# SPDX-License-Identifier: Apache-2.0
"""Collects results until they are worth a part."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pizza.bulk.directory import RunDirectory
from pizza.bulk.parts import batch_of
from pizza.bulk.rows import Row

if TYPE_CHECKING:
    from pizza.attribution import Attribution

_BYTES = 16 << 20
_SECONDS = 60.0


class PartWriter:
    """Holds the results of at most one part.

    Args:
        directory: Where parts go.
        rows: Most rows of a part.
        full: Whether whole attributions are kept.
        written: Called with the file and its number of rows.
    """

    def __init__(
        self,
        directory: RunDirectory,
        *,
        rows: int,
        full: bool,
        written: Callable[[Path, int], None],
    ) -> None:
        self._directory = directory
        self._rows = rows
        self._full = full
        self._written = written
        # A flush that was begun on a thread goes on when its caller is cancelled; the last one
        # waits for it.
        self._writing = threading.Lock()
        self._batches: list[Any] = []
        self._bytes = 0
        self._since = time.monotonic()

    async def add(self, row: Row, index: int, made: Attribution) -> None:
        """Take a result in; may write a part.

        Raises:
            OSError: The part cannot be written.
        """
        batch = await asyncio.to_thread(batch_of, row, index, made, full=self._full)
        if not self._batches:
            self._since = time.monotonic()
        self._batches.append(batch)
        self._bytes += batch.nbytes
        waited = time.monotonic() - self._since
        if len(self._batches) >= self._rows or self._bytes >= _BYTES or waited >= _SECONDS:
            self._report(await asyncio.to_thread(self._write))

    def flush(self) -> None:
        """Write what is there, if anything is.

        Raises:
            OSError: It cannot be written.
        """
        self._report(self._write())

    def _write(self) -> tuple[Path, int] | None:
        with self._writing:
            if not self._batches:
                return None
            path = self._directory.write(self._batches)
            rows, self._batches, self._bytes = len(self._batches), [], 0
            return path, rows

    def _report(self, written: tuple[Path, int] | None) -> None:
        if written is not None:
            self._written(*written)
