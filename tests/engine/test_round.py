# SPDX-License-Identifier: Apache-2.0
"""Many requests together: looked up at once, stored in groups, and still each paid for once."""

import asyncio
import sqlite3

from simulated import request, requests

from pizza._engine.scheduler import Scheduler
from pizza._engine.shelf import Shelf
from pizza.abc import ResponseCache
from pizza.caches.memory import MemoryCache
from pizza.caches.sqlite import SqliteCache
from pizza.completion import Completion
from pizza.errors import CacheError


class Counted(MemoryCache):
    """Says how many entries were read and stored at a time; stores when it is let."""

    def __init__(self):
        super().__init__()
        self.read, self.stored = [], []
        self.let = asyncio.Event()
        self.let.set()

    async def get_many(self, keys):
        self.read.append(len(keys))
        return await super().get_many(keys)

    async def put_many(self, values):
        self.stored.append(len(values))
        await self.let.wait()
        await super().put_many(values)


async def ask(scheduler, work):
    """All outcomes of a stream, in the order in which they come."""
    async with scheduler.stream(work) as outcomes:
        return [outcome async for outcome in outcomes]


async def warm(scheduler, clock):
    """Until something was answered one request goes alone."""
    await clock.run(scheduler.submit(request("warm")))


async def test_a_round_is_read_and_stored_at_once(clock, backend):
    cache = Counted()
    async with Scheduler(backend, cache=cache, clock=clock) as scheduler:
        await warm(scheduler, clock)
        cache.let.clear()
        stream = asyncio.create_task(ask(scheduler, requests(39)))
        await clock.advance(10)
        cache.let.set()
        first = await clock.run(asyncio.wait_for(stream, None))
        again = await clock.run(ask(scheduler, requests(39)))
    assert cache.read == [1, 39, 39]
    # The first answers go at once, and those that come meanwhile go together.
    assert sum(cache.stored) == 40
    assert max(cache.stored) >= 30
    assert {outcome.answer.cached for outcome in first} == {False}
    assert {outcome.answer.cached for outcome in again} == {True}
    texts = {outcome.index: outcome.answer.completion.text for outcome in first}
    assert {o.index: o.answer.completion.text for o in again} == texts
    assert len(backend.arrivals) == 40


async def test_nobody_computes_with_an_answer_that_is_not_stored(clock, backend):
    cache = Counted()
    async with Scheduler(backend, cache=cache, clock=clock) as scheduler:
        await warm(scheduler, clock)
        cache.let.clear()
        stream = asyncio.create_task(ask(scheduler, requests(20)))
        await clock.advance(10)
        assert (len(backend.arrivals), stream.done()) == (21, False)
        cache.let.set()
        assert len(await clock.run(asyncio.wait_for(stream, None))) == 20


async def test_who_leaves_while_a_group_is_stored_pays_for_nothing_twice(clock, backend):
    cache = Counted()
    async with Scheduler(backend, cache=cache, clock=clock) as scheduler:
        await warm(scheduler, clock)
        cache.let.clear()
        stream = asyncio.create_task(ask(scheduler, requests(20)))
        await clock.advance(10)
        stream.cancel()
        await clock.settle()
        assert stream.cancelled()
        # Whoever asks the same meanwhile waits for it.
        other = asyncio.create_task(scheduler.run(list(requests(20))))
        await clock.advance(10)
        cache.let.set()
        answers = await clock.run(asyncio.wait_for(other, None))
    assert {answer.cached for answer in answers} == {True}
    assert (len(cache), len(backend.arrivals)) == (21, 21)


async def test_who_leaves_hands_on_what_he_has_not_sent(clock, backend):
    """Given a stream that leads flights it never sent -> they are somebody else's to send."""
    cache = MemoryCache()
    async with Scheduler(backend, cache=cache, clock=clock) as scheduler:
        stream = asyncio.create_task(ask(scheduler, requests(20)))
        await clock.settle()  # one request is under way, the others wait for its answer
        other = asyncio.create_task(scheduler.run(list(requests(20))))
        await clock.settle()
        stream.cancel()
        answers = await clock.run(asyncio.wait_for(other, None))
        assert len(answers) == 20
    assert len(cache) == 20
    assert len(backend.arrivals) <= 21


async def test_a_stream_that_is_left_in_its_look_up_keeps_nobody_waiting(clock, backend):
    class Slow(MemoryCache):
        async def get_many(self, keys):
            await clock.sleep(5.0)
            return {}

    async with Scheduler(backend, cache=Slow(), clock=clock) as scheduler:
        stream = asyncio.create_task(ask(scheduler, requests(3)))
        await clock.advance(1.0)
        other = asyncio.create_task(scheduler.run(list(requests(3))))
        await clock.advance(1.0)
        stream.cancel()
        assert len(await clock.run(asyncio.wait_for(other, None))) == 3
    assert len(backend.arrivals) == 3


class Plain(ResponseCache):
    """What a plugin may offer: `get` and `put`, and no more."""

    def __init__(self, broken=()):
        self.values, self.broken = {}, set(broken)

    async def get(self, key):
        await asyncio.sleep(0)
        if key in self.broken:
            raise KeyError("cannot be read")
        return self.values.get(key)

    async def put(self, key, value):
        await asyncio.sleep(0)
        if key in self.broken:
            raise CacheError("cannot be stored")
        self.values[key] = value


async def test_a_cache_of_get_and_put_will_do(clock, backend):
    cache = Plain()
    async with Scheduler(backend, cache=cache, clock=clock) as scheduler:
        first = await clock.run(scheduler.run(list(requests(30))))
        again = await clock.run(scheduler.run(list(requests(30))))
    assert [a.completion for a in first] == [a.completion for a in again]
    assert {answer.cached for answer in again} == {True}
    assert (len(cache.values), len(backend.arrivals)) == (30, 30)


async def test_an_entry_that_cannot_be_read_fails_alone(clock, backend):
    cache = Plain()
    async with Scheduler(backend, cache=cache, clock=clock) as scheduler:
        await clock.run(scheduler.run(list(requests(10))))
        cache.broken = {list(cache.values)[4]}
        again = await clock.run(scheduler.run(list(requests(10))))
    failed = [result for result in again if isinstance(result, CacheError)]
    assert [str(error) for error in failed if "cannot be read" in str(error)]
    assert (len(failed), len(backend.arrivals)) == (1, 10)
    assert sum(getattr(result, "cached", False) for result in again) == 9


async def test_an_answer_that_cannot_be_stored_takes_no_other_with_it(clock, backend, caplog):
    keys = Plain()
    async with Scheduler(backend, cache=keys, clock=clock) as scheduler:
        await clock.run(scheduler.run(list(requests(10))))
    broken = next(iter(keys.values))
    cache = Plain([broken])
    cache.get = keys.__class__.get.__get__(Plain())
    async with Scheduler(backend, cache=cache, clock=clock) as scheduler:
        results = await clock.run(scheduler.run(list(requests(10))))
    assert all(not isinstance(result, Exception) for result in results)
    assert set(cache.values) == set(keys.values) - {broken}
    assert caplog.text.count("could not be stored") == 1


async def test_one_answer_that_hangs_in_the_cache_holds_up_no_other(clock, backend):
    class Hanging(MemoryCache):
        async def put_many(self, values):
            if not len(self):
                await super().put_many(values)
                await clock.sleep(1e6)
            await super().put_many(values)

    async def body():
        async with Scheduler(backend, cache=Hanging(), clock=clock) as scheduler:
            stuck = asyncio.create_task(scheduler.submit(request("stuck")))
            await clock.sleep(1.0)
            results = await scheduler.run(list(requests(20)))
            assert not stuck.done()
            stuck.cancel()
            return results

    assert len(await clock.run(body(), limit=100)) == 20


class Scrambled(SqliteCache):
    """A cache of somebody else, who knows nothing of `get_many` and `put_many`."""

    async def get(self, key):
        value = await super().get(key)
        return None if value is None else bytes(byte ^ 0xFF for byte in value)

    async def put(self, key, value):
        await super().put(key, bytes(byte ^ 0xFF for byte in value))


async def test_no_value_passes_by_a_cache_that_changes_values(tmp_path, backend, clock):
    path = tmp_path / "scrambled.sqlite"
    cache = Scrambled(path)
    await cache.put_many({"a" * 64: b"one", "b" * 64: b"two"})
    assert await cache.get_many(["a" * 64, "b" * 64, "c" * 64]) == {
        "a" * 64: b"one",
        "b" * 64: b"two",
    }
    await cache.aclose()
    with sqlite3.connect(path) as connection:
        stored = {value for (value,) in connection.execute("SELECT value FROM answers")}
    connection.close()
    assert stored == {bytes(byte ^ 0xFF for byte in value) for value in (b"one", b"two")}


async def test_an_answer_that_comes_as_all_writers_end_is_stored():
    """Given four groups that are stored in one turn of the loop, and an answer in the same turn."""
    cache = Counted()
    cache.let.clear()
    stored = []
    async with asyncio.TaskGroup() as group:
        shelf = Shelf(cache, group)
        for number in range(4):
            shelf.store(str(number), Completion(text="x"), stored.append)
            await asyncio.sleep(0)
        assert cache.stored == [1, 1, 1, 1]
        cache.let.set()
        asyncio.get_running_loop().call_soon(
            shelf.store, "last", Completion(text="x"), stored.append
        )
        for _ in range(5):
            await asyncio.sleep(0)
        await shelf.drain()
    assert (len(stored), len(shelf), len(cache)) == (5, 0, 5)
