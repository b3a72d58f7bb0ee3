# SPDX-License-Identifier: Apache-2.0
"""Collects the jobs that are waiting and gives them to the model together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from pizza.worker import Worker
from pizza_embedded.inference import Inference, Job, Outcome
from pizza_embedded.runtime import ContextTooLong

BATCH_SIZE = 32

Result = Outcome | ContextTooLong


class Batcher:
    """A queue in front of the model's thread.

    While one batch is computed the next one gathers, so that batches grow with the load and an
    idle server answers at once.
    """

    def __init__(self, inference: Inference, *, batch_size: int = BATCH_SIZE) -> None:
        """Prepare the queue.

        Args:
            inference: The model.
            batch_size: Most jobs that are computed together.
        """
        self._inference = inference
        self._batch_size = batch_size
        self._worker = Worker("pizza-embedded-server")
        self._waiting: deque[tuple[Job, asyncio.Future[Result]]] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to answer; needs a running event loop."""
        self._task = asyncio.create_task(self._run(), name="pizza-embedded-batcher")

    async def answer(self, jobs: Sequence[Job]) -> list[Result]:
        """Compute jobs, together with whatever else is waiting."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Result]] = [loop.create_future() for _ in jobs]
        self._waiting.extend(zip(jobs, futures, strict=True))
        self._arrived.set()
        return [await future for future in futures]

    async def aclose(self) -> None:
        """Stop, also in the middle of a batch, and end the thread."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for _, future in self._waiting:
            future.cancel()
        await self._worker.aclose()

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            batch = [
                self._waiting.popleft() for _ in range(min(self._batch_size, len(self._waiting)))
            ]
            if not self._waiting:
                self._arrived.clear()
            # Nobody waits for the answer of a request whose client has gone.
            batch = [(job, future) for job, future in batch if not future.done()]
            if batch:
                await self._answer(batch)

    async def _answer(self, batch: Sequence[tuple[Job, asyncio.Future[Result]]]) -> None:
        jobs = [job for job, _ in batch]
        try:
            results = await self._worker.run(lambda stop: self._inference.answer(jobs, stop))
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:
            # Raised where each answer is awaited, so that every request gets its own 500.
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
