# SPDX-License-Identifier: Apache-2.0
"""What was spent in a run directory, on disk before it is spent."""

from __future__ import annotations

import mmap
import os
import struct
import time
import zlib
from pathlib import Path

from pizza.errors import ConfigError
from pizza.limits import Spent

_RECORD = struct.Struct("<4sQQQdI")
_BODY = struct.Struct("<4sQQQd")
_CRC = struct.Struct("<I")
_MAGIC = b"PZSP"
_SLOT = 64
_ORPHAN_S = 30.0
"""How long a process may take to end whose run has lost its main process."""
_LOOK_S = 0.05


class TallyFile:
    """Two records in one small file, written in turn: one of them is always whole.

    A record is written into the page cache through shared memory, without a system call; the page
    cache outlives the process that wrote it, and after a power cut the last seconds may be missing.
    Records hold what is under way at its worst case, so what is left by a killed run is never too
    little.

    Whoever writes has the file locked: the process that opened the run directory, or the one that
    it lends the tally to. So no run begins while a part of an earlier one, whose main process was
    killed, may still spend.

    Args:
        path: The file; made when it is not there.

    Raises:
        ConfigError: The file is damaged, or another process goes on writing it.
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lent = False
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(self._file, path)
            self._number, self._spent = _read(self._file, path)
            if not self._number:
                # Room for both records: what is written later needs none, on a full disk either.
                os.pwrite(self._file, bytes(2 * _SLOT), 0)
                os.fsync(self._file)
            self._memory = mmap.mmap(self._file, 2 * _SLOT)
        except BaseException:
            os.close(self._file)
            raise

    @property
    def spent(self) -> Spent:
        """The newest record."""
        if self._lent and (found := _newest(self._memory[:])) is not None:
            return found[1]
        return self._spent

    def write(self, spent: Spent) -> None:
        """Write a record.

        Cost: about 3 us.
        """
        self._number += 1
        self._spent = spent
        body = _BODY.pack(_MAGIC, self._number, spent.calls, spent.tokens, spent.cost)
        start = _SLOT * (self._number % 2)
        self._memory[start : start + _RECORD.size] = body + _CRC.pack(zlib.crc32(body))

    def lend(self) -> None:
        """Let another process of this machine open and write the file; here it is only read."""
        import fcntl

        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._lent = True

    def take_back(self) -> None:
        """Be the one who writes again; waits until the other process has closed the file.

        Raises:
            ConfigError: It does not.
        """
        _lock(self._file, self._path)
        self._number, self._spent = _read(self._file, self._path)
        self._lent = False

    def close(self) -> None:
        """Close the file."""
        self._memory.close()
        os.close(self._file)


def _lock(file: int, path: Path) -> None:
    import fcntl

    patience = time.monotonic() + _ORPHAN_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > patience:
                raise ConfigError(
                    f"{path.parent} is in use: the main process of a run there is gone, and "
                    "another one of it goes on (a Ray cluster that does not notice?). End it, and "
                    "run again."
                ) from error
            time.sleep(_LOOK_S)
        else:
            return


def _read(file: int, path: Path) -> tuple[int, Spent]:
    data = os.pread(file, 2 * _SLOT, 0)
    found = _newest(data)
    if found is not None:
        return found
    if data.strip(b"\0"):
        raise ConfigError(
            f"{path} is damaged: what this run spent is not known. Delete the file to count from "
            "zero."
        )
    return 0, Spent()


def _newest(data: bytes) -> tuple[int, Spent] | None:
    found: list[tuple[int, Spent]] = []
    for slot in (data[:_SLOT], data[_SLOT:]):
        if len(slot) < _RECORD.size:
            continue
        magic, number, calls, tokens, cost, crc = _RECORD.unpack_from(slot)
        if magic == _MAGIC and crc == zlib.crc32(slot[: _RECORD.size - 4]):
            found.append((number, Spent(calls=calls, tokens=tokens, cost=cost)))
    return max(found, key=lambda pair: pair[0]) if found else None
