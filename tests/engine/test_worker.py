# SPDX-License-Identifier: Apache-2.0
"""The thread on which a model of this process computes."""

import asyncio
import gc
import threading
import weakref

import pytest

from pizza.worker import Worker


def names(prefix):
    return [t.name for t in threading.enumerate() if t.name.startswith(prefix)]


class Held:
    """A piece of work that waits until it is told to go on."""

    def __init__(self):
        self.started, self.go_on, self.stopped = threading.Event(), threading.Event(), None

    def __call__(self, stop, *emit):
        self.started.set()
        assert self.go_on.wait(10)
        self.stopped = stop.is_set()
        return "done"

    async def begun(self):
        assert await asyncio.to_thread(self.started.wait, 10)


async def test_work_is_done_on_one_thread_of_its_own_one_after_the_other():
    worker = Worker("test-one")
    running, most, seen = [0], [0], set()

    def work(stop):
        running[0] += 1
        most[0] = max(most[0], running[0])
        seen.add(threading.current_thread())
        running[0] -= 1
        assert not stop.is_set()
        return len(seen)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(worker.run(work)) for _ in range(20)]
    assert {task.result() for task in tasks} == {1}
    assert most == [1]
    assert threading.current_thread() not in seen
    await worker.aclose()
    assert not names("test-one")


async def test_an_error_of_the_work_is_the_callers():
    worker = Worker("test-error")

    def work(stop):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await worker.run(work)
    assert await worker.run(lambda stop: 3) == 3
    await worker.aclose()


async def test_a_stream_hands_over_what_is_emitted_before_the_work_ends():
    worker, held = Worker("test-stream"), Held()

    def work(stop, emit):
        emit(1)
        held(stop)
        emit(2)

    found = []
    async for item in worker.stream(work):
        found.append(item)
        if item == 1:
            await held.begun()
            held.go_on.set()
    assert found == [1, 2]
    await worker.aclose()


async def test_what_was_emitted_before_an_error_is_kept():
    worker = Worker("test-stream-error")

    def work(stop, emit):
        emit(1)
        raise ValueError("no")

    stream = worker.stream(work)
    assert await anext(stream) == 1
    with pytest.raises(ValueError, match="no"):
        await anext(stream)
    await worker.aclose()


async def test_cancelling_tells_the_work_and_what_waits_is_never_begun():
    worker, held, begun = Worker("test-cancel"), Held(), []
    first = asyncio.create_task(worker.run(held))
    await held.begun()
    second = asyncio.create_task(worker.run(begun.append))
    await asyncio.sleep(0)
    for task in (first, second):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    held.go_on.set()
    assert await worker.run(lambda stop: stop.is_set()) is False
    assert held.stopped is True
    assert begun == []
    await worker.aclose()


async def test_leaving_a_stream_tells_the_work():
    worker, held = Worker("test-leave"), Held()

    def work(stop, emit):
        emit(1)
        held(stop)
        emit(2)

    stream = worker.stream(work)
    assert await anext(stream) == 1
    await held.begun()
    await stream.aclose()
    held.go_on.set()
    await worker.aclose()
    assert held.stopped is True


async def test_closing_waits_for_the_work_without_holding_the_loop():
    worker, held = Worker("test-close"), Held()
    task = asyncio.create_task(worker.run(held))
    await held.begun()
    closing = asyncio.create_task(worker.aclose())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not closing.done()
    held.go_on.set()
    await closing
    assert await task == "done"
    assert not names("test-close")


async def test_closing_twice_is_closing():
    worker = Worker("test-twice")
    assert await worker.run(lambda stop: 1) == 1
    await worker.aclose()
    await worker.aclose()
    with pytest.raises(RuntimeError):
        await worker.run(lambda stop: 1)


async def test_closing_that_is_cancelled_still_ends_the_thread():
    worker, held = Worker("test-cancelled-close"), Held()
    task = asyncio.create_task(worker.run(held))
    await held.begun()
    (thread,) = [t for t in threading.enumerate() if t.name.startswith("test-cancelled-close")]
    closing = asyncio.create_task(worker.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    held.go_on.set()
    await task
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()


async def test_what_failed_work_held_is_let_go():
    class Big:
        pass

    worker, seen = Worker("test-free"), []

    def work(stop):
        held = Big()
        seen.append(weakref.ref(held))
        raise ValueError("no")

    def streamed(stop, emit):
        work(stop)

    with pytest.raises(ValueError, match="no"):
        await worker.run(work)
    with pytest.raises(ValueError, match="no"):
        await anext(worker.stream(streamed))
    await worker.run(lambda stop: None)
    gc.collect()
    assert [ref() for ref in seen] == [None, None]
    await worker.aclose()
