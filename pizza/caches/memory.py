# SPDX-License-Identifier: Apache-2.0
"""Answers in memory, for as long as the session lives."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from pizza.abc import ResponseCache
from pizza.errors import ConfigError

_OVERHEAD = 250
"""Bytes that an entry takes besides its value: key, two objects, a place in the table."""


class MemoryCache(ResponseCache):
    """Keeps the most recently used answers, up to a number of bytes.

    Args:
        max_bytes: Bytes to keep at most, overhead included; about 4 KB an answer.
    """

    def __init__(self, max_bytes: int = 64 * 1024 * 1024) -> None:
        if max_bytes < 1:
            raise ConfigError(f"max_bytes must be at least 1, not {max_bytes!r}.")
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes in use, overhead included."""
        return self._bytes

    async def get(self, key: str) -> bytes | None:
        """See `ResponseCache.get`."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    async def put(self, key: str, value: bytes) -> None:
        """See `ResponseCache.put`; here nothing outlives the process."""
        old = self._entries.pop(key, None)
        if old is not None:
            self._bytes -= len(old) + _OVERHEAD
        self._entries[key] = value
        self._bytes += len(value) + _OVERHEAD
        while self._bytes > self._max_bytes and self._entries:
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= len(dropped) + _OVERHEAD

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See `ResponseCache.get_many`: one after the other, since none waits."""
        found = [(key, await self.get(key)) for key in keys]
        return {key: value for key, value in found if value is not None}

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        """See `ResponseCache.put_many`."""
        for key, value in values.items():
            await self.put(key, value)

    async def aclose(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._bytes = 0
