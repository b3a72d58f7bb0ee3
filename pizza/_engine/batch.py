# SPDX-License-Identifier: Apache-2.0
"""Single requests into batches, for backends that answer several at once.

Requests that wait at the same moment go together. While a batch is computed the next one fills
up, so batches are full whenever there is enough to do, and nobody waits for a timer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pizza.completion import Reply
from pizza.errors import BackendError, BackendTimeoutError, PluginContractError

if TYPE_CHECKING:
    from pizza._engine.clock import Clock
    from pizza.abc import Backend
    from pizza.completion import Request

_Item = tuple["Request", "asyncio.Future[Reply]"]


class Batcher:
    """Collects requests for `Backend.answer_batch`; one batch is under way at a time.

    Args:
        backend: The backend.
        group: Owner of the task that runs the batches.
        clock: The clock.
        timeout_s: Seconds that one batch may take.
    """

    def __init__(
        self, backend: Backend, group: asyncio.TaskGroup, clock: Clock, timeout_s: float
    ) -> None:
        self._backend = backend
        self._group = group
        self._clock = clock
        self._timeout_s = timeout_s
        self._waiting: deque[_Item] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def answer(self, request: Request) -> Reply:
        """As `Backend.answer`, in company."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._runner is None:
            self._runner = self._group.create_task(self._run(), name="pizza-batches")
        try:
            return await future
        finally:
            # A caller that is gone must not be computed for, if it is not too late.
            future.cancel()

    async def _run(self) -> None:
        try:
            while True:
                # Everybody who is ready to run adds to the batch before it starts.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                batch: list[_Item] = []
                while self._waiting and len(batch) < self._backend.batch_size:
                    item = self._waiting.popleft()
                    if not item[1].done():
                        batch.append(item)
                if not batch:
                    return
                await self._answer(batch)
        finally:
            self._runner = None

    async def _answer(self, batch: list[_Item]) -> None:
        try:
            results = await self._ask([request for request, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as failure:
            # Whatever it is, it is the failure of these requests and of nothing else.
            for _, future in batch:
                if not future.done():
                    future.set_exception(failure)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Reply):
                future.set_result(result)
            else:
                future.set_exception(result)

    async def _ask(self, requests: list[Request]) -> Sequence[Reply | BackendError]:
        timeout = self._clock.timeout(self._timeout_s)
        try:
            async with timeout:
                results = await self._backend.answer_batch(requests)
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise BackendTimeoutError(
                f"{self._backend.name} did not answer a batch of {len(requests)} within "
                f"{self._timeout_s:g} s (RetryPolicy.attempt_timeout_s).",
                backend=self._backend.name,
            ) from error
        if len(results) != len(requests):
            raise PluginContractError(
                f"{self._backend.name}: answer_batch gave {len(results)} answers for "
                f"{len(requests)} requests."
            )
        return results
