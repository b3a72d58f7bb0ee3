# SPDX-License-Identifier: Apache-2.0
"""Which row is handed out when workers die: nothing is lost, nothing is done twice."""

import asyncio
import threading

from hypothesis import given, settings
from hypothesis import strategies as st
from pizza_ray.feed import DEATHS, Feed

from pizza.bulk import Pending, Row


class Rows:
    """A run's rows, without a run."""

    def __init__(self, n):
        self.n = n
        self.stopping = False
        self.gate = None
        self.asked = asyncio.Event()

    async def rows(self):
        for place in range(self.n):
            self.asked.set()
            if self.gate is not None:
                # As a run does: read on a thread.
                await asyncio.to_thread(self.gate.wait)
            row = Row(id=str(place), prompt="a")
            yield Pending(row=row, place=place, index=place)


async def take_all(feed):
    taken = []
    while (pending := await feed.take()) is not None:
        taken.append(pending.place)
    return taken


async def test_rows_of_a_dead_worker_come_again():
    feed = Feed(Rows(4))
    first = [await feed.take() for _ in range(3)]
    feed.settled([0])
    assert feed.returned([first[1]], [first[2]]) == []
    assert sorted(await take_all(feed)) == [1, 2, 3]
    assert not feed.over
    feed.settled([1, 2, 3])
    assert feed.over
    assert not await feed.more()
    await feed.aclose()


async def test_a_row_that_workers_die_of_is_tried_alone_and_then_given_up():
    feed = Feed(Rows(3))
    pending = [await feed.take() for _ in range(2)]
    assert feed.returned(pending, []) == []
    again = [await feed.take() for _ in range(2)]
    assert feed.returned(again, []) == []
    # Two deaths in company: nobody knows which of them it was.
    assert await feed.take() is None
    alone = feed.suspect()
    assert DEATHS == 3
    assert feed.returned([alone], []) == [alone]
    other = feed.suspect()
    feed.settled([other.place])
    assert feed.suspect() is None
    assert (await feed.take()).place == 2


async def test_whoever_is_cancelled_while_a_row_is_read_loses_none():
    work = Rows(2)
    work.gate = threading.Event()
    feed = Feed(work)
    taking = asyncio.create_task(feed.take())
    await work.asked.wait()
    taking.cancel()
    await asyncio.wait((taking,))
    assert taking.cancelled()
    work.gate.set()
    assert await take_all(feed) == [0, 1]
    await feed.aclose()


async def test_a_run_that_stops_hands_out_nothing_and_waits_for_what_is_out():
    work = Rows(5)
    feed = Feed(work)
    first, second = await feed.take(), await feed.take()
    work.stopping = True
    assert await feed.take() is None
    assert not feed.over
    feed.settled([first.place])
    feed.returned([second], [])
    assert feed.over
    assert not await feed.more()
    assert feed.suspect() is None


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 12), st.randoms(use_true_random=False))
def test_every_row_is_settled_exactly_once_whoever_dies(n, rng):
    """A worker at a time takes rows, writes some, and dies or not; deadly rows kill it."""

    async def go():
        feed, settled, given_up = Feed(Rows(n)), [], []
        deadly = {place for place in range(n) if rng.random() < 0.15}
        steps = 0
        while await feed.more():
            steps += 1
            assert steps < 50 * (n + 1)
            suspect = feed.suspect()
            begun = [] if suspect is None else [suspect]
            while suspect is None and len(begun) < 3:
                pending = await feed.take()
                if pending is None:
                    break
                begun.append(pending)
            dies = any(p.place in deadly for p in begun) or (suspect is None and steps % 7 == 3)
            if dies:
                finished = [p for p in begun if p.place not in deadly and rng.random() < 0.5]
                rest = [p for p in begun if p not in finished]
                fatal = feed.returned(rest, finished)
                given_up += [p.place for p in fatal]
                feed.settled([p.place for p in fatal])
            else:
                settled += [p.place for p in begun]
                feed.settled([p.place for p in begun])
        await feed.aclose()
        assert sorted(settled + given_up) == list(range(n))
        assert deadly <= set(given_up)

    asyncio.run(go())
