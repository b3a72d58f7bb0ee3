# SPDX-License-Identifier: Apache-2.0
"""Which rows a worker has, whatever order its answers come in."""

import asyncio
from types import SimpleNamespace

import pytest
from pizza_ray.carried import Part, Told
from pizza_ray.feed import Feed
from pizza_ray.hired import Hired, WorkerLost

from pizza import bulk
from pizza.bulk import Pending, Row
from pizza.bulk.parts import write_unnamed
from pizza.events import RowFinished

pytest.importorskip("pyarrow", reason="installed with the extra 'bulk'")


class DiedError(Exception):
    """Stands for Ray's."""


class Actor:
    """Answers when the test says so."""

    def __init__(self):
        self.answers = {}
        self.changed = asyncio.Event()

    def __getattr__(self, name):
        return SimpleNamespace(remote=lambda *given: self._called(name, *given))

    async def _called(self, name, *given):
        if name != "explain":
            return Told()
        self.answers[given[0].place] = answer = asyncio.get_running_loop().create_future()
        self.changed.set()
        return await answer


class Crew:
    """What a worker is lent, with a run's own directory."""

    def __init__(self, directory, rows):
        self.actor = Actor()
        self.directory = directory
        self.work = self
        self.stopping = self.hopeless = False
        self.done, self.parts = 0, []
        self.pending = [
            Pending(row=Row(id=str(n), prompt="a"), place=n, index=n) for n in range(rows)
        ]
        exceptions = SimpleNamespace(RayActorError=DiedError, RayTaskError=ZeroDivisionError)
        self.cluster = SimpleNamespace(ray=SimpleNamespace(exceptions=exceptions))
        self.feed = Feed(self)

    def start(self, name, incarnation):
        return self.actor

    async def rows(self):
        for pending in self.pending:
            yield pending

    def tell(self, event):
        pass

    def succeeded(self):
        self.done += 1
        self.actor.changed.set()

    def written(self, path, rows):
        self.parts.append((path.name, rows))


def finished(place):
    return RowFinished(
        at=0.0, id=str(place), index=0, calls=1, cache_hits=0, unanswered=0, seconds=0.0
    )


@pytest.fixture
def crew(tmp_path):
    with bulk.directory.RunDirectory(tmp_path / "run") as directory:
        yield Crew(directory, rows=3)


async def until(crew, holds):
    while not holds():
        crew.actor.changed.clear()
        await crew.actor.changed.wait()


async def served_until_dead(crew, steps):
    """What a worker still has when it dies after these steps."""
    hired = Hired(crew, "w0", 0)
    serving = asyncio.create_task(hired.serve(crew.feed, 3))
    await until(crew, lambda: len(crew.actor.answers) == 3)
    for place, told in steps:
        goal = crew.done + 1
        crew.actor.answers.pop(place).set_result(told)
        await until(crew, lambda goal=goal: crew.done == goal)
    next(iter(crew.actor.answers.values())).set_exception(DiedError("gone"))
    with pytest.raises(WorkerLost, match="gone"):
        await serving
    begun, unwritten = hired.rest()
    return [p.place for p in begun], [p.place for p in unwritten]


def part(crew, *places):
    write_unnamed(crew.directory.results / ".part-w0.0-1.tmp", [])
    return (Part(file=".part-w0.0-1.tmp", places=places),)


async def test_results_that_are_not_in_a_part_are_given_back(crew):
    steps = [(0, Told(finished=finished(0))), (1, Told(finished=finished(1)))]
    assert await served_until_dead(crew, steps) == ([2], [0, 1])
    assert crew.done == 2


async def test_results_in_a_part_are_not_given_back(crew):
    steps = [
        (0, Told(finished=finished(0))),
        (1, Told(finished=finished(1), parts=part(crew, 0, 1))),
    ]
    assert await served_until_dead(crew, steps) == ([2], [])
    assert crew.parts == [("part-000001.parquet", 2)]
    assert [p.name for p in crew.directory.results.iterdir()] == ["part-000001.parquet"]


async def test_a_part_may_be_told_of_before_its_rows_are(crew):
    steps = [
        (1, Told(finished=finished(1), parts=part(crew, 0, 1))),
        (0, Told(finished=finished(0))),
    ]
    assert await served_until_dead(crew, steps) == ([2], [])


async def test_a_row_in_a_part_whose_own_answer_never_comes_is_done(crew):
    steps = [(1, Told(finished=finished(1), parts=part(crew, 0, 1)))]
    assert await served_until_dead(crew, steps) == ([2], [])
    assert crew.done == 2
