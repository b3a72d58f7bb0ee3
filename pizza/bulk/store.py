# SPDX-License-Identifier: Apache-2.0
"""The answers of a run; a run that cannot keep them must not go on paying for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pizza.abc import ResponseCache
from pizza.caches.sqlite import SqliteCache
from pizza.errors import CacheError


class Store(ResponseCache):
    """A `SqliteCache` that gives nothing out once it could not be written.

    A scheduler delivers an answer that could not be stored, since it is paid for, and would go
    on. With this one the next request fails before it is sent.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._cache = SqliteCache(path)
        self.failure: CacheError | None = None

    async def get(self, key: str) -> bytes | None:
        """See `ResponseCache.get`.

        Raises:
            CacheError: The file cannot be read, or could not be written.
        """
        self._check()
        return await self._cache.get(key)

    async def put(self, key: str, value: bytes) -> None:
        """See `ResponseCache.put`."""
        await self._write({key: value})

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See `ResponseCache.get_many`.

        Raises:
            CacheError: As `get`.
        """
        self._check()
        return await self._cache.get_many(keys)

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        """See `ResponseCache.put_many`."""
        await self._write(values)

    async def _write(self, values: Mapping[str, bytes]) -> None:
        try:
            await self._cache.put_many(values)
        except CacheError as error:
            self.failure = self.failure or error
            raise

    def _check(self) -> None:
        if self.failure is not None:
            raise CacheError(str(self.failure)) from self.failure

    async def aclose(self) -> None:
        """See `ResponseCache.aclose`."""
        await self._cache.aclose()
