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


async def test_nothing_is_sent_while_many_answers_wait_to_be_stored():
    answer = Completion(text="x", tokens=("x",), finish_reason="stop", usage=Usage(), model="m")
    stored = asyncio.Event()

    class Stalled(MemoryCache):
        async def put_many(self, values):
            await stored.wait()
            await super().put_many(values)

    landed = []
    async with asyncio.TaskGroup() as group:
        shelf = Shelf(Stalled(), group)
        sent = 0

        async def send():
            nonlocal sent
            await shelf.wait_for_room()
            sent += 1
            shelf.store(f"{sent:064x}", answer, landed.append)

        senders = [group.create_task(send()) for _ in range(1000)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert (len(shelf), sent, landed) == (128, 128, [])
        # Whoever gives up leaves the others waiting.
        senders[-1].cancel()
        await asyncio.wait((senders[-1],))
        assert sent == 128
        stored.set()
        await asyncio.wait(senders)
        await shelf.drain()
    assert sent == len(landed) == 999
