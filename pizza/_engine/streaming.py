# SPDX-License-Identifier: Apache-2.0
"""Many requests at once: one task looks them up, as many as needed send what is not known."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import AsyncIterable, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pizza._engine.outcomes import Answer, Outcome
from pizza._engine.turns import Line
from pizza.errors import PizzaError

if TYPE_CHECKING:
    from pizza._engine.batch import Round
    from pizza._engine.desk import Desk
    from pizza.completion import Request

_TOGETHER = 64
"""Requests that are looked up together."""
_TAKING_S = 0.005
"""How long requests are taken from their source before the loop turns: rendering may be slow."""


class Stream:
    """Outcomes of requests in completion order: ``async with Stream(...) as outcomes``.

    At most ``places`` requests are under way, and at most as many outcomes wait to be taken: a
    slow consumer slows the sending down. Leaving the block cancels what is under way and waits for
    that: no task survives it.

    Args:
        desk: Takes the requests.
        requests: Any iterable; taken as places become free.
        places: Requests under way at the same time, at least 1.
        batches: Told of every request, where the backend answers several together.
    """

    def __init__(
        self,
        desk: Desk,
        requests: Iterable[Request] | AsyncIterable[Request],
        *,
        places: int,
        batches: Round | None = None,
    ) -> None:
        self._desk = desk
        self._batches = batches
        self._requests = requests
        self._places = places
        # Few places at a time would mean few look-ups at a time. A batch waits for requests that
        # may come, so none may be held back then.
        self._step = 1 if batches is not None else max(1, places // 8)
        self._taken = 0
        self._under_way = 0
        self._unknown: deque[tuple[int, str | None, Request]] = deque()
        """Requests that the cache does not hold, with the key of the flight that they lead."""
        self._outcomes: deque[Outcome[Request]] = deque()
        self._error: Exception | None = None
        self._ended = self._left = self._starting = False
        self._room: asyncio.Future[None] | None = None
        self._news: asyncio.Future[None] | None = None
        self._line = Line()
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- taking outcomes ----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._start(self._feed())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left = True
        for task in self._tasks:
            task.cancel()
        for _, key, _ in self._unknown:
            if key is not None:
                self._desk.abandon(key)
        self._unknown.clear()
        # The tasks report and never fail, so the group has nothing to add to the caller's own
        # exception, and must not wrap it.
        await self._group.__aexit__(None, None, None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[Request]:
        while not self._outcomes:
            if self._error is not None:
                raise self._error
            if self._ended and not self._under_way:
                raise StopAsyncIteration
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        outcome = self._outcomes.popleft()
        self._make_room()
        return outcome

    # --- looking up ---------------------------------------------------------------------------

    async def _feed(self) -> None:
        try:
            if isinstance(self._requests, AsyncIterable):
                async for request in self._requests:
                    await self._open([request])
                    await self._wait_for_room()
            else:
                source = iter(self._requests)
                while taken := self._take(source):
                    await self._open(taken)
                    await self._wait_for_room()
        except Exception as error:  # whatever it is, it belongs to the consumer
            self._fail(error)
        finally:
            self._ended = True
            self._wake()

    def _take(self, source: Iterable[Request]) -> list[Request]:
        taken: list[Request] = []
        most = min(self._free, _TOGETHER)
        until = time.monotonic() + _TAKING_S
        for request in source:
            taken.append(request)
            if len(taken) == most or time.monotonic() > until:
                break
        return taken

    async def _open(self, requests: list[Request]) -> None:
        first = self._taken
        self._taken += len(requests)
        self._under_way += len(requests)
        leading: list[tuple[int, str, Request]] = []
        following: list[tuple[int, None, Request]] = []
        for index, request in enumerate(requests, first):
            try:
                self._desk.check_open()
                key = self._desk.key(request)
            except PizzaError as error:
                self._settle(index, request, error)
                continue
            if self._desk.lead(key):
                leading.append((index, key, request))
            else:
                following.append((index, None, request))
        known = await self._desk.find([key for _, key, _ in leading]) if leading else {}
        for index, key, request in leading:
            if (result := known.get(key)) is not None:
                self._settle(index, request, result)
            else:
                self._unknown.append((index, key, request))
        self._unknown.extend(following)
        if self._batches is not None:
            self._batches.looked_up(len(self._unknown))
        self._start_worker()

    # --- sending ------------------------------------------------------------------------------

    def _start_worker(self) -> None:
        if self._unknown and not self._starting:
            self._starting = True
            self._start(self._work())

    async def _work(self) -> None:
        self._starting = False
        try:
            while self._unknown:
                index, key, request = self._unknown.popleft()
                # Whoever finds work lets one more look for it, who gets his turn when this one
                # waits: requests that are answered at once need one task.
                self._start_worker()
                if self._batches is not None:
                    self._batches.handed_on()
                await self._send(index, key, request)
        except Exception as error:  # a bug: it belongs to the consumer
            self._fail(error)

    async def _send(self, index: int, key: str | None, request: Request) -> None:
        if key is not None:
            done = functools.partial(self._settle, index, request)
            await self._desk.send(key, request, done, self._line)
            return
        result: Answer | PizzaError
        try:
            result = await self._desk.submit(request)
        except PizzaError as error:
            result = error
        self._settle(index, request, result)

    def _settle(self, index: int, request: Request, result: Answer | PizzaError) -> None:
        """A request has its answer, which is stored, or there is none."""
        if self._left:
            return
        self._under_way -= 1
        if self._batches is not None:
            self._batches.finished()
        if isinstance(result, PizzaError):
            outcome = Outcome(item=request, index=index, error=result)
        else:
            outcome = Outcome(item=request, index=index, answer=result)
        self._outcomes.append(outcome)
        self._wake()
        self._make_room()

    # --- waiting ------------------------------------------------------------------------------

    @property
    def _free(self) -> int:
        return self._places - max(self._under_way, len(self._outcomes))

    async def _wait_for_room(self) -> None:
        while self._free < self._step:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _make_room(self) -> None:
        if self._room is not None and self._free >= self._step and not self._room.done():
            self._room.set_result(None)

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._wake()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
