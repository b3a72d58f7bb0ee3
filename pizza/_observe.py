# SPDX-License-Identifier: Apache-2.0
"""Log records and spans of requests, attributions, sessions and runs, and the ids that join them.

`docs/observability.md` names the fields. Nothing here holds the text of a prompt, an answer or an
error unless the environment asks for it, and whoever nobody listens to pays for one question per
request: whether somebody does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from pizza._observe_spans import NO_SPAN, Span, span, tracer

if TYPE_CHECKING:
    from pizza._engine.scheduler import SchedulerStatistics
    from pizza.attribution import Attribution
    from pizza.events import RunEnded

CONTENT_VARIABLE = "PIZZA_LOG_CONTENT"
"""Set to 1, it adds prompts, answers and messages of errors to records and spans."""

_SHORT = 12

_sessions = logging.getLogger("pizza.session")
_runs = logging.getLogger("pizza.bulk")

_attribution: ContextVar[str | None] = ContextVar("pizza_attribution", default=None)
_row: ContextVar[str | None] = ContextVar("pizza_row", default=None)
_unheard: ContextVar[bool] = ContextVar("pizza_unheard", default=False)


def content_asked() -> bool:
    """Whether prompts and answers may be told."""
    return os.environ.get(CONTENT_VARIABLE, "").strip().lower() in ("1", "true", "yes")


def short(key: str) -> str:
    """A request's id: the first digits of the key that its answer is cached under."""
    return key[:_SHORT]


def model_of(backend: str) -> str:
    """What comes after the colon of a backend's name, or the name itself."""
    return backend.partition(":")[2] or backend


def heard(log: logging.Logger, level: int = logging.DEBUG) -> tuple[bool, bool]:
    """Whether somebody listens to a logger at a level, and whether to spans."""
    logged, traced = log.isEnabledFor(level), tracer() is not None
    if (logged or traced) and _unheard.get():
        return False, False
    return logged, traced


@contextmanager
def unheard() -> Iterator[None]:
    """Nothing is told of what happens in the block: it only looks like requests."""
    token = _unheard.set(True)
    try:
        yield
    finally:
        _unheard.reset(token)


def fields(**own: Any) -> dict[str, Any]:
    """What a record carries for handlers that read fields: its own, and whose work it is part of.

    Those that are ``None`` are left out.
    """
    found = {**own, "attribution": _attribution.get(), "row": _row.get()}
    return {f"pizza_{name}": value for name, value in found.items() if value is not None}


def whose() -> str:
    """The same for people: ``" [attribution 1f0c9a2b, row r5]"``, or nothing."""
    parts = [
        f"{name} {value}"
        for name, value in (("attribution", _attribution.get()), ("row", _row.get()))
        if value is not None
    ]
    return f" [{', '.join(parts)}]" if parts else ""


# --- attributions -------------------------------------------------------------------------------


class Work:
    """One attribution or evaluation, as it is told of.

    Attributes:
        id: Tells it from others that run at the same time.
    """

    __slots__ = ("_span", "found", "id")

    def __init__(self, name: str, span: Span) -> None:
        self.id = name
        self._span = span
        self.found: dict[str, Any] = {}

    def ended(self, made: Attribution) -> None:
        """Note what it took."""
        self.found = {"calls": made.calls, "cache_hits": made.cache_hits}
        self._span.note(
            {
                "pizza.calls": made.calls,
                "pizza.cache_hits": made.cache_hits,
                "pizza.units": len(made.units),
                # Not by the names that requests use: what sums spans up would count twice.
                "pizza.input_tokens": made.usage.prompt_tokens,
                "pizza.output_tokens": made.usage.completion_tokens,
            }
        )


@contextmanager
def attribution(model: str, now: Callable[[], float], kind: str = "attribution") -> Iterator[Work]:
    """Give the work in the block an id that all records and spans within it carry.

    Args:
        model: The backend's name.
        now: The clock, seconds.
        kind: ``"attribution"`` or ``"evaluation"``.
    """
    token = _attribution.set(os.urandom(4).hex())
    try:
        with _spanned(f"pizza.{kind}", model) as begun:
            work = Work(_attribution.get() or "", begun)
            since = now()
            _told(_sessions, logging.DEBUG, f"{kind} begun: {model}", event=f"{kind}-begun")
            try:
                yield work
            except BaseException as error:
                seconds = now() - since
                text = f"{kind} failed after {seconds:.3g} s: {said(error)}"
                name = type(error).__name__
                event = f"{kind}-failed"
                _told(_sessions, logging.DEBUG, text, event=event, seconds=seconds, error=name)
                raise
            seconds = now() - since
            text = f"{kind} ended after {seconds:.3g} s"
            event = f"{kind}-ended"
            _told(_sessions, logging.DEBUG, text, event=event, seconds=seconds, **work.found)
    finally:
        _attribution.reset(token)


@contextmanager
def row(name: str) -> Iterator[None]:
    """All records and spans within the block carry the id of a row."""
    token = _row.set(name)
    try:
        yield
    finally:
        _row.reset(token)


@contextmanager
def _spanned(name: str, model: str) -> Iterator[Span]:
    if tracer() is None or _unheard.get():
        yield NO_SPAN
        return
    attributes = {
        "gen_ai.request.model": model_of(model),
        "pizza.attribution.id": _attribution.get(),
        "pizza.row.id": _row.get(),
    }
    with span(name, attributes, content=content_asked()) as begun:
        yield begun


def said(error: BaseException) -> str:
    """An error as it may be told: its type, and its message where that is asked for."""
    name = type(error).__name__
    return f"{name}: {error}" if content_asked() else name


def _told(log: logging.Logger, level: int, text: str, **own: Any) -> None:
    if heard(log, level)[0]:
        log.log(level, "%s%s", text, whose(), extra=fields(**own))


# --- sessions and runs --------------------------------------------------------------------------


def session_opened(model: str, now: Callable[[], float]) -> Callable[[SchedulerStatistics], None]:
    """Tell that a session is open.

    Args:
        model: The backend's name.
        now: The clock, seconds.

    Returns:
        Tells that it is closed, and what it did.
    """
    name, since = os.urandom(4).hex(), now()
    common = {"session": name, "backend": model}
    text = f"session {name} opened: {model}"
    _told(_sessions, logging.INFO, text, event="session-opened", **common)

    def closed(did: SchedulerStatistics) -> None:
        seconds, used = now() - since, did.usage
        _told(
            _sessions,
            logging.INFO,
            f"session {name} closed after {seconds:.3g} s: {did.calls} sent, {did.cache_hits} from "
            f"the cache, {did.shared} shared, {did.retries} retries, {did.rate_limited} refused "
            f"for their rate, {did.failures} failed, {used.prompt_tokens} + "
            f"{used.completion_tokens} tokens, ${did.cost:.4g}",
            event="session-closed",
            **common,
            seconds=seconds,
            calls=did.calls,
            cache_hits=did.cache_hits,
            retries=did.retries,
            refused=did.rate_limited,
            failures=did.failures,
            input_tokens=used.prompt_tokens,
            output_tokens=used.completion_tokens,
            cost=did.cost,
        )

    return closed


class Run:
    """One run over an input, as it is told of."""

    __slots__ = ("_name", "_span")

    def __init__(self, name: str, span: Span) -> None:
        self._name = name
        self._span = span

    def ended(self, event: RunEnded) -> None:
        """Tell how it ended: the reason, and not the message."""
        reason, done, failed, total = event.reason, event.done, event.failed, event.total
        found = {"reason": reason, "done": done, "failed": failed, "rows": total}
        self._span.note({f"pizza.run.{name}": value for name, value in found.items()})
        text = f"run {self._name} ended ({reason}): {done} of {total} rows done, {failed} failed"
        _told(_runs, logging.INFO, text, event="run-ended", run=self._name, **found)


@contextmanager
def run(name: str, *, done: int, total: int) -> Iterator[Run]:
    """A run in the block.

    Args:
        name: Its id, the same whenever it is resumed.
        done: Rows with a result already.
        total: Rows of the input.
    """
    text = f"run {name} started: {done} of {total} rows done before"
    _told(_runs, logging.INFO, text, event="run-started", run=name, done=done, rows=total)
    with span("pizza.run", {"pizza.run.id": name}, content=content_asked()) as begun:
        yield Run(name, begun)
