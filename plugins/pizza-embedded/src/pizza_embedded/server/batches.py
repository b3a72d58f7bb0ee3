# SPDX-License-Identifier: Apache-2.0
"""Batches: created from an input file, run in the background, answered in two files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pizza_embedded.faults import uniform
from pizza_embedded.server.batch_input import Line, check
from pizza_embedded.server.batch_objects import Batch, read_create, result_row
from pizza_embedded.server.batch_options import BatchOptions
from pizza_embedded.server.errors import ApiError, internal
from pizza_embedded.server.files import Files, StoredFile, page
from pizza_embedded.server.stats import Stats

_GROUP = 64  # lines that are run together
_OPEN = ("validating", "in_progress", "finalizing", "cancelling")
_RAN_OUT = "This request could not be executed before the completion window expired."
_CANCELLED = "This request was not executed because its batch was cancelled."

Answer = Callable[[str, bytes], Awaitable[bytes]]
"""Runs one body at one path, and returns the JSON of its answer or raises `ApiError`."""


@dataclass(slots=True, kw_only=True)
class _Run:
    """A batch that is being worked on."""

    batch: Batch
    number: int
    tokens: int
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    answered: list[bytes] = field(default_factory=list)
    failed: list[bytes] = field(default_factory=list)


class Batches:
    """All batches of a server.

    Args:
        options: How they behave.
        files: Where input is found and output is put.
        answer: Runs one request.
        stats: Is told what happened.
        endpoints: Paths that batches may be for.
        models: The models that are served.
    """

    def __init__(
        self,
        options: BatchOptions,
        *,
        files: Files,
        answer: Answer,
        stats: Stats,
        endpoints: Collection[str],
        models: Collection[str],
    ) -> None:
        self._options = options
        self._files = files
        self._answer = answer
        self._stats = stats
        self._endpoints = endpoints
        self._models = models
        self._runs: dict[str, _Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Stop all batches at once."""
        for task in tuple(self._tasks):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    # --- the four calls -------------------------------------------------------------------------

    def create(self, body: bytes) -> dict[str, Any]:
        """Begin a batch.

        Raises:
            ApiError: The request is refused.
        """
        given = read_create(body, self._endpoints)
        content = self._files.get(given.input_file_id).content
        batch = Batch(
            endpoint=given.endpoint, input_file_id=given.input_file_id, metadata=given.metadata
        )
        run = _Run(batch=batch, number=len(self._runs), tokens=len(content) // 4)
        self._runs[batch.id] = run
        task = asyncio.create_task(self._run(run, content), name=f"pizza-embedded-{batch.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return batch.to_dict()

    def get(self, batch_id: str) -> dict[str, Any]:
        """A batch.

        Raises:
            ApiError: 404, there is none of that name.
        """
        return self._found(batch_id).batch.to_dict()

    def cancel(self, batch_id: str) -> dict[str, Any]:
        """Stop a batch: what is under way is finished, the rest is not begun.

        Raises:
            ApiError: 404, or 409 because it has ended.
        """
        run = self._found(batch_id)
        if run.batch.status not in ("validating", "in_progress"):
            raise ApiError(409, f"Cannot cancel a batch with status '{run.batch.status}'.")
        run.batch.enter("cancelling")
        run.cancelled.set()
        return run.batch.to_dict()

    def listed(self, query: Mapping[str, str]) -> dict[str, Any]:
        """One page of batches, newest first."""
        found = [run.batch.to_dict() for run in reversed(self._runs.values())]
        return page(found, query, default=20, most=100)

    def _found(self, batch_id: str) -> _Run:
        if (run := self._runs.get(batch_id)) is None:
            raise ApiError(404, f"No batch found with id '{batch_id}'.")
        return run

    # --- in the background ----------------------------------------------------------------------

    async def _run(self, run: _Run, content: bytes) -> None:
        await asyncio.sleep(0)  # whoever created it sees it being validated
        batch = run.batch
        checked = check(
            content,
            batch.endpoint,
            max_requests=self._options.max_requests,
            models=self._models,
        )
        errors = list(checked.errors) or self._too_many_tokens(run)
        if errors:
            batch.errors = {"object": "list", "data": errors}
            self._end(run, "failed")
            return
        batch.model = checked.model
        batch.request_counts["total"] = len(checked.lines)
        if not run.cancelled.is_set():
            batch.enter("in_progress")
        with suppress(TimeoutError):
            await asyncio.wait_for(run.cancelled.wait(), self._options.delay_s)
        expires = self._options.expire if run.number < self._options.first else None
        done = await self._run_lines(run, checked.lines[:expires])
        rest = checked.lines[done:]
        code = "batch_cancelled" if run.cancelled.is_set() else "batch_expired"
        why = _CANCELLED if run.cancelled.is_set() else _RAN_OUT
        run.failed += [result_row(line, error={"code": code, "message": why}) for line in rest]
        batch.request_counts["failed"] += len(rest)
        self._write(run)
        ended = "cancelled" if run.cancelled.is_set() else "expired" if rest else "completed"
        self._end(run, ended)

    def _too_many_tokens(self, run: _Run) -> list[dict[str, Any]]:
        most = self._options.max_queued_tokens
        queued = sum(one.tokens for one in self._runs.values() if one.batch.status in _OPEN)
        if most is None or queued <= most:
            return []
        message = (
            f"Enqueued token limit reached for this model. Limit: {most} enqueued tokens. Please "
            "try again once some in_progress batches have been completed."
        )
        return [{"code": "token_limit_exceeded", "message": message, "param": None, "line": None}]

    async def _run_lines(self, run: _Run, lines: Sequence[Line]) -> int:
        done = 0
        while done < len(lines) and not run.cancelled.is_set():
            async with asyncio.TaskGroup() as group:
                for line in lines[done : done + _GROUP]:
                    group.create_task(self._run_line(run, line))
                    done += 1
        return done

    async def _run_line(self, run: _Run, line: Line) -> None:
        self._stats.batch_lines += 1
        body = bytes(line.body)
        attempt = self._stats.batch_attempt(body)
        try:
            if uniform("line", self._options.seed, body, attempt) < self._options.fail:
                raise internal(500, {})
            content = await self._answered(line.url, body)
        except ApiError as error:
            run.failed.append(result_row(line, status=error.status, body=error.body))
            run.batch.request_counts["failed"] += 1
        else:
            run.answered.append(result_row(line, status=200, body=content))
            run.batch.request_counts["completed"] += 1

    async def _answered(self, path: str, body: bytes) -> bytes:
        try:
            return await self._answer(path, body)
        except ApiError:
            raise
        except Exception as error:  # one line's failure ends neither its batch nor the server
            raise internal(500, {}) from error

    def _write(self, run: _Run) -> None:
        batch = run.batch
        batch.finalizing_at = int(time.time())
        if run.number < self._options.first:
            for index in range(min(self._options.malformed, len(run.answered))):
                run.answered[index] = run.answered[index][: len(run.answered[index]) // 2]
        for name, rows in (("output", run.answered), ("error", run.failed)):
            if rows:
                # The order says nothing, and clients are shown that.
                rows.sort(key=lambda row: uniform("order", row))
                content = b"\n".join(rows) + b"\n"
                file = self._files.add(
                    StoredFile(
                        filename=f"{batch.id}_{name}.jsonl", purpose="batch_output", content=content
                    )
                )
                setattr(batch, f"{name}_file_id", file.id)

    def _end(self, run: _Run, status: str) -> None:
        run.batch.enter(status)
        self._stats.batches[status] += 1
