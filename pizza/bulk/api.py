# SPDX-License-Identifier: Apache-2.0
"""`run` and `running`: what programs call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pizza.bulk.engine import Engine, engine_of
from pizza.bulk.rows import Columns
from pizza.bulk.runner import Runner
from pizza.bulk.settings import Settings, Summary
from pizza.bulk.sources import Source
from pizza.bulk.tables import arrow, source_of
from pizza.errors import ConfigError
from pizza.events import Event, RunEnded
from pizza.specs import Choice

_WAITING = 1024
_KEEP = ("scores", "full")

Given = Source | str | Path | Iterable[Mapping[str, Any]]
"""What `source_of` understands."""


async def run(
    rows: Given,
    directory: str | Path,
    *,
    model: Any = "embedded",
    options: Mapping[str, Any] | None = None,
    columns: Columns | None = None,
    split: str | None = None,
    workers: int | None = None,
    keep: str = "scores",
    part_rows: int = 512,
    circuit: int = 5,
    skip_bad_rows: bool = False,
    retry_failed: bool = False,
    resume: bool | None = None,
    engine: Engine | Choice | str | None = None,
    on_event: Callable[[Event], None] | None = None,
    **session: Any,
) -> Summary:
    """Explain every row of an input; go on where an earlier run in the directory stopped.

    Memory does not grow with the input, but for 8 bytes a row.

    Args:
        rows: A file, a directory of text files, a dataset, a list of mappings, or a `Source`.
        directory: Where everything of the run is; made when it is not there.
        model: As for `Session`.
        options: Options of `Session.attribute`, for every row. ``skip_failures`` is True here when
            nobody says otherwise: an answer that the model refuses costs only its own coalition.
        columns: Which columns of the input mean what.
        split: Of a dataset.
        workers: Rows that are worked on at the same time; with another engine than the local, by
            each of its processes. By default 16; in this process 500 for a backend that answers in
            batches (`Backend.batch_window_s`), so that one batch holds the requests of many rows.
        keep: ``"scores"``, or ``"full"``: the whole attribution with all answers as well.
        part_rows: Most rows of a part.
        circuit: Rows in a row that fail for a reason that is not theirs, after which the run
            stops; 0 = never.
        skip_bad_rows: Whether records that are no rows are noted as failures instead of refused.
        retry_failed: Whether rows that failed for a reason of their own are tried again.
        resume: True = the directory must hold a run.
        engine: What explains the rows: ``"local"``, this process, which is the default;
            ``"ray"``, a Ray cluster, with options as in ``"ray:workers=8"``; or an `Engine`. A
            run may go on with another one.
        on_event: Called with every `pizza.events.Event`, on the event loop.
        **session: Options of `Session`. ``budget`` caps all runs in the directory together;
            ``cache`` is another file for the answers than the directory's own.

    Returns:
        How it ended. A cap that was reached, a full disk and a circuit that opened are no errors
        here: ``reason`` says so, and the same call goes on.

    Raises:
        ConfigError: Something does not fit; nothing was sent.
        ResultFormatError: The directory is damaged.

    Cost: what the rows without a result need; answers that the directory holds are not paid for.
    """
    arrow()
    settings = _settings(
        source=await asyncio.to_thread(source_of, rows, columns, split=split),
        directory=Path(directory),
        model=model,
        options=dict(options or {}),
        session=session,
        workers=workers,
        keep=keep,
        part_rows=part_rows,
        circuit=circuit,
        skip_bad_rows=skip_bad_rows,
        retry_failed=retry_failed,
        resume=resume,
    )
    return await Runner(settings, engine_of(engine), on_event or (lambda event: None)).go()


@contextlib.asynccontextmanager
async def running(
    rows: Given, directory: str | Path, **options: Any
) -> AsyncIterator[AsyncIterator[Event]]:
    """Run and watch: the events of `run`, as they happen; the last one is `RunEnded`.

    A context manager on purpose: leaving it early ends the run in good order. Whoever reads slowly
    misses events of rows and slows nothing down.

    Args:
        rows: As for `run`.
        directory: As for `run`.
        **options: As for `run`.
    """
    queue: asyncio.Queue[Event | None] = asyncio.Queue()

    def listen(event: Event) -> None:
        if queue.qsize() < _WAITING or isinstance(event, RunEnded):
            queue.put_nowait(event)

    async def work() -> None:
        try:
            await run(rows, directory, on_event=listen, **options)
        finally:
            queue.put_nowait(None)

    task = asyncio.create_task(work(), name="pizza-run")

    async def events() -> AsyncIterator[Event]:
        while (event := await queue.get()) is not None:
            yield event
        await task

    try:
        yield events()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _settings(**given: Any) -> Settings:
    for name in ("workers", "part_rows"):
        if name == "workers" and given[name] is None:
            continue
        if isinstance(given[name], bool) or not given[name] >= 1:
            raise ConfigError(f"{name} is at least 1, not {given[name]!r}.")
    if given["keep"] not in _KEEP:
        raise ConfigError(f"keep is one of {', '.join(_KEEP)}, not {given['keep']!r}.")
    session = dict(given["session"])
    for name in ("tally", "clock"):
        if name in session:
            raise ConfigError(f"{name} is the run's own: leave it out.")
    cache = session.pop("cache", None)
    if cache is not None and not isinstance(cache, (str, Path)):
        raise ConfigError("a run keeps answers in a file: cache is a path, or left out.")
    given["session"] = session
    return Settings(cache=None if cache is None else Path(cache), **given)
