# SPDX-License-Identifier: Apache-2.0
"""Single requests into batches, for backends that answer several at once.

Requests that wait at the same moment go together, and so do those that are known to be coming: a
round of coalitions is one batch, also when every one of them is first looked up in a cache on
disk. While a batch is computed the next one fills up. Nobody waits for a timer, unless the backend
asks for that because its batches take much longer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from pizza.completion import Reply
from pizza.errors import BackendTimeoutError, PluginContractError

if TYPE_CHECKING:
    from pizza._engine.clock import Clock
    from pizza.abc import Backend
    from pizza.completion import Request

Item = TypeVar("Item")
_Item = tuple["Request", "asyncio.Future[Reply]"]


class Round:
    """The requests of one stream, as far as they are known.

    More are coming as long as the source has items and a worker is free to take one. Workers that
    wait for a rate, a slot or the budget are not free, so that nobody waits for them in turn.

    Args:
        workers: How many take items.
        changed: Set when the answer may have changed.
    """

    def __init__(self, workers: int, changed: asyncio.Event) -> None:
        self._free = workers
        self._looked_up = 0
        self._open = True
        self._changed = changed

    @property
    def coming(self) -> bool:
        """Whether another request may arrive without anything being answered first."""
        return self._looked_up > 0 or (self._open and self._free > 0)

    def taken_from(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items."""
        for item in items:
            self._free -= 1
            self._changed.set()
            yield item
        self._open = False
        self._changed.set()

    def looked_up(self, waiting: int) -> None:
        """So many requests, taken and looked up, are about to be handed on."""
        self._looked_up = waiting

    def handed_on(self) -> None:
        """One of them goes to the backend, or waits for something else than company."""
        self._looked_up -= 1
        self._changed.set()

    def finished(self) -> None:
        """A worker has its answer."""
        self._free += 1


class Batcher:
    """Collects requests for `Backend.answer_batch`.

    Args:
        backend: The backend.
        group: Owner of the task that runs the batches.
        clock: The clock.
        timeout_s: Seconds that one batch may take, or ``None``.
        size: Most requests in a batch, at most as many as can wait at the same time.
    """

    def __init__(
        self,
        backend: Backend,
        group: asyncio.TaskGroup,
        clock: Clock,
        timeout_s: float | None,
        size: int,
    ) -> None:
        self._backend = backend
        self._group = group
        self._clock = clock
        self._timeout_s = timeout_s
        self._waiting: deque[_Item] = deque()
        self._runner: asyncio.Task[None] | None = None
        self._size = size
        self._looking_up = 0
        self._arrived = 0
        self._places = asyncio.Semaphore(backend.batches_at_once)
        self._rounds: list[Round] = []
        self._changed = asyncio.Event()

    @contextlib.contextmanager
    def looking_up(self) -> Generator[None, None, None]:
        """While this is open, a request may be about to arrive: a batch that is not full waits."""
        self._looking_up += 1
        try:
            yield
        finally:
            self._looking_up -= 1
            self._changed.set()

    @contextlib.contextmanager
    def round(self, workers: int) -> Generator[Round, None, None]:
        """Requests that so many workers are going to send."""
        made = Round(workers, self._changed)
        self._rounds.append(made)
        try:
            yield made
        finally:
            self._rounds.remove(made)
            self._changed.set()

    def _more_to_come(self) -> bool:
        return self._looking_up > 0 or any(one.coming for one in self._rounds)

    async def answer(self, request: Request) -> Reply:
        """As `Backend.answer`, in company."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        self._arrived += 1
        self._changed.set()
        if self._runner is None:
            self._runner = self._group.create_task(self._run(), name="pizza-batches")
        try:
            return await future
        finally:
            # A caller that is gone must not be computed for, if it is not too late.
            future.cancel()
            self._changed.set()

    async def _run(self) -> None:
        try:
            while True:
                await self._places.acquire()
                # Everybody who is ready to run adds to the batch before it starts.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                await self._fill()
                batch: list[_Item] = []
                while self._waiting and len(batch) < self._size:
                    item = self._waiting.popleft()
                    if not item[1].done():
                        batch.append(item)
                if not batch:
                    self._places.release()
                    return
                task = self._group.create_task(self._answer(batch), name="pizza-batch-waits")
                task.add_done_callback(lambda _: self._places.release())
        finally:
            self._runner = None

    async def _fill(self) -> None:
        """Wait until the batch is full, or nothing more is coming."""
        wait_s = self._backend.batch_wait_s
        while len(self._waiting) < self._size:
            if self._more_to_come():
                self._changed.clear()
                await self._changed.wait()
                continue
            before = self._arrived
            if wait_s > 0:
                await self._pause(wait_s)
            if self._arrived == before and not self._more_to_come():
                return

    async def _pause(self, seconds: float) -> None:
        """Wait for company, but not on behalf of callers that are gone."""
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(seconds):
                while any(not future.done() for _, future in self._waiting):
                    self._changed.clear()
                    await self._changed.wait()

    async def _answer(self, batch: list[_Item]) -> None:
        """Answer a batch, as long as somebody waits for one of its answers."""
        attempt = self._group.create_task(self._attempt(batch), name="pizza-batch")
        futures = [future for _, future in batch]

        def left(_: asyncio.Future[Reply]) -> None:
            # A batch whose answers are all there ends by itself.
            if all(one.done() for one in futures) and any(one.cancelled() for one in futures):
                attempt.cancel()

        for future in futures:
            future.add_done_callback(left)
        try:
            await attempt
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise

    async def _attempt(self, batch: list[_Item]) -> None:
        timeout = self._clock.timeout(self._timeout_s)
        try:
            try:
                async with timeout:
                    await self._hand_out(batch)
            except TimeoutError as error:
                if not timeout.expired():
                    raise
                raise BackendTimeoutError(
                    f"{self._backend.name} did not answer a batch of {len(batch)} within "
                    f"{self._timeout_s:g} s (RetryPolicy.attempt_timeout_s).",
                    backend=self._backend.name,
                ) from error
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as failure:
            # Whatever it is, it is the failure of the requests that have no answer yet.
            for _, future in batch:
                if not future.done():
                    future.set_exception(failure)

    async def _hand_out(self, batch: list[_Item]) -> None:
        missing = set(range(len(batch)))
        answers = self._backend.answer_batch([request for request, _ in batch])
        async with contextlib.aclosing(answers):
            async for position, result in answers:
                if position not in missing:
                    raise PluginContractError(
                        f"{self._backend.name}: answer_batch answered position {position!r} of "
                        f"{len(batch)} requests, which is out of range or was answered before."
                    )
                missing.discard(position)
                future = batch[position][1]
                if future.done():
                    continue
                if isinstance(result, Reply):
                    future.set_result(result)
                else:
                    future.set_exception(result)
                # Its caller stores it and compares it: one after the other, so that a batch that is
                # answered at once does not hold up the loop.
                await asyncio.sleep(0)
        if missing:
            raise PluginContractError(
                f"{self._backend.name}: answer_batch gave {len(batch) - len(missing)} answers for "
                f"{len(batch)} requests."
            )
