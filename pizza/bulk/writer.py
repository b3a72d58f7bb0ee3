# SPDX-License-Identifier: Apache-2.0
"""Collects results until they are worth a part."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pizza.bulk.parts import batch_of
from pizza.bulk.rows import Row

if TYPE_CHECKING:
    from pizza.attribution import Attribution

_BYTES = 16 << 20
_SECONDS = 60.0


class PartWriter:
    """Holds the results of at most one part, and of those that come while it is written.

    Args:
        write: Writes record batches as one part and returns its file; called on a thread.
        rows: Most rows of a part.
        full: Whether whole attributions are kept.
        written: Called on the event loop with the file and its rows' positions in the input.
    """

    def __init__(
        self,
        write: Callable[[list[Any]], Path],
        *,
        rows: int,
        full: bool,
        written: Callable[[Path, list[int]], None],
    ) -> None:
        self._write_part = write
        self._rows = rows
        self._full = full
        self._written = written
        # A flush that was begun on a thread goes on when its caller is cancelled; the last one
        # waits for it.
        self._writing = threading.Lock()
        # Results come in while a part is written.
        self._holding = threading.Lock()
        self._held: list[tuple[int, Any]] = []
        self._bytes = 0
        self._since = time.monotonic()

    async def add(self, row: Row, place: int, made: Attribution) -> None:
        """Take a result in; may write a part.

        Args:
            row: What was asked for.
            place: Its position in the input, from 0.
            made: What came of it.

        Raises:
            OSError: The part cannot be written; its results are held still.
        """
        batch = await asyncio.to_thread(batch_of, row, place, made, full=self._full)
        with self._holding:
            if not self._held:
                self._since = time.monotonic()
            self._held.append((place, batch))
            self._bytes += batch.nbytes
            waited = time.monotonic() - self._since
            full = len(self._held) >= self._rows or self._bytes >= _BYTES or waited >= _SECONDS
        if full:
            self._report(await asyncio.to_thread(self._write))

    def flush(self) -> None:
        """Write what is there, if anything is.

        Raises:
            OSError: It cannot be written; it is held still.
        """
        self._report(self._write())

    def _write(self) -> tuple[Path, list[int]] | None:
        with self._writing:
            with self._holding:
                held, size = self._held, self._bytes
                self._held, self._bytes = [], 0
            if not held:
                return None
            try:
                path = self._write_part([batch for _, batch in held])
            except BaseException:
                with self._holding:
                    self._held, self._bytes = held + self._held, size + self._bytes
                raise
            return path, [place for place, _ in held]

    def _report(self, written: tuple[Path, list[int]] | None) -> None:
        if written is not None:
            self._written(*written)
