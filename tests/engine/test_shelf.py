# SPDX-License-Identifier: Apache-2.0
"""Answers on their way into the cache: none is left behind."""

import asyncio

from pizza._engine.shelf import Shelf
from pizza.caches.memory import MemoryCache
from pizza.completion import Completion, Usage


async def test_an_answer_that_comes_as_the_last_writers_end_is_stored():
    answer = Completion(text="x", tokens=("x",), finish_reason="stop", usage=Usage(), model="m")
    cache = MemoryCache()
    landed = []
    async with asyncio.TaskGroup() as group:
        shelf = Shelf(cache, group)
        for n in range(60):
            shelf.store(f"{n:064x}", answer, landed.append)
        # All writers end in this turn of the loop; their callbacks come in the next one.
        await asyncio.sleep(0)
        assert len(landed) == 60
        shelf.store(f"{60:064x}", answer, landed.append)
        await shelf.drain()
    assert (len(shelf), len(landed)) == (0, 61)
    assert len(await cache.get_many([f"{n:064x}" for n in range(61)])) == 61
    await cache.aclose()
