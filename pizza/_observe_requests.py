# SPDX-License-Identifier: Apache-2.0
"""What is told of one request: queued, sent, answered, refused, tried again, stored."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from pizza._observe import content_asked, fields, heard, model_of, said, short, whose
from pizza._observe_spans import Span, span

if TYPE_CHECKING:
    from pizza.abc import Backend
    from pizza.completion import Reply, Request

_log = logging.getLogger("pizza.scheduler")


class Trail:
    """Tells of nothing: what a request has that nobody listens to."""

    __slots__ = ()

    def queued(self) -> None:
        """It is in no cache: it waits for budget and limiter."""

    def attempt(self, number: int, answer: Awaitable[Reply]) -> Awaitable[Reply]:
        """The answer of an attempt, told of when it is awaited.

        Args:
            number: Of the attempt, from 1.
            answer: Sends the request.
        """
        return answer

    def waits(self, number: int, wait_s: float) -> None:
        """Attempt ``number`` failed, and the next one follows after so many seconds."""

    def failed(self, error: BaseException) -> None:
        """It is given up."""

    def stored(self) -> None:
        """Its answer was given to the cache; a warning tells where that could not keep it."""


NOBODY = Trail()


def trail(key: str, request: Request, backend: Backend, now: Callable[[], float]) -> Trail:
    """What tells of a request; `NOBODY` where nobody listens.

    Args:
        key: What its answer is cached under.
        request: The request.
        backend: Who is asked.
        now: The clock, seconds.
    """
    logged, traced = heard(_log)
    if not (logged or traced):
        return NOBODY
    return _Heard(short(key), request, backend.name, now)


def told_known(keys: Iterable[str], *, shared: bool = False) -> None:
    """Tell of requests whose answers cost nothing.

    Args:
        keys: What the answers are cached under.
        shared: They came with identical requests under way, and not from the cache.
    """
    if not heard(_log)[0]:
        return
    event, text = "cached", "answered from the cache"
    if shared:
        event, text = "shared", "answered together with an identical one"
    for key in keys:
        extra = fields(event=event, request=short(key))
        _log.debug("request %s %s%s", short(key), text, whose(), extra=extra)


class _Heard(Trail):
    __slots__ = ("_backend", "_id", "_now", "_request", "_since", "_whose", "_work")

    def __init__(self, name: str, request: Request, backend: str, now: Callable[[], float]) -> None:
        self._id = name
        self._request = request
        self._backend = backend
        self._now = now
        self._since = now()
        # Answers are stored in tasks of others.
        self._work, self._whose = fields(), whose()

    def queued(self) -> None:
        self._since = self._now()
        self._tell("queued", "queued")

    async def attempt(self, number: int, answer: Awaitable[Reply]) -> Reply:
        began = self._now()
        content = content_asked()
        asked = self._asked() if content else {}
        self._tell(
            "sent",
            f"sent after {began - self._since:.3g} s" + (f": {asked}" if asked else ""),
            number,
            wait_s=began - self._since,
            **asked,
        )
        model = model_of(self._backend)
        operation = "chat" if self._request.kind == "complete" else "text_completion"
        attributes = self._attributes(operation, model, number, asked)
        name = f"{operation} {model}"
        with span(name, attributes, to_server=True, content=content) as begun:
            try:
                reply = await answer
            except BaseException as error:
                self._broken(error, number, self._now() - began, begun)
                raise
            self._answered(reply, number, self._now() - began, begun, content)
        return reply

    def waits(self, number: int, wait_s: float) -> None:
        text = f"is tried again in {wait_s:.3g} s"
        self._tell("retry", text, number, wait_s=wait_s)

    def failed(self, error: BaseException) -> None:
        self._tell("failed", f"given up: {said(error)}", error=type(error).__name__)

    def stored(self) -> None:
        self._tell("stored", "given to the cache")

    # --- what is told -------------------------------------------------------------------------

    def _tell(self, event: str, text: str, number: int | None = None, **own: Any) -> None:
        if not _log.isEnabledFor(logging.DEBUG):
            return
        name = self._id if number is None else f"{self._id}.{number}"
        own |= {"event": event, "request": self._id, "attempt": number, "backend": self._backend}
        _log.debug("request %s %s%s", name, text, self._whose, extra=fields(**own) | self._work)

    def _answered(
        self, reply: Reply, number: int, seconds: float, begun: Span, content: bool
    ) -> None:
        found, usage = reply.completion, reply.completion.usage
        wrote = {"answer": found.text} if content else {}
        self._tell(
            "answered",
            f"answered in {seconds:.3g} s: {usage.prompt_tokens} + {usage.completion_tokens} tokens"
            + (f", {reply.request_id}" if reply.request_id else "")
            + (f": {found.text!r}" if content else ""),
            number,
            seconds=seconds,
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            server_request=reply.request_id,
            **wrote,
        )
        begun.note(
            {
                "gen_ai.response.model": found.model or None,
                "gen_ai.response.finish_reasons": (found.finish_reason or "unknown",),
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": usage.completion_tokens,
                "pizza.server_request.id": reply.request_id,
            }
        )
        if content:
            part = {"type": "text", "content": found.text}
            written = [{"role": "assistant", "parts": [part]}]
            begun.note({"gen_ai.output.messages": json.dumps(written)})

    def _broken(self, error: BaseException, number: int, seconds: float, begun: Span) -> None:
        server = getattr(error, "request_id", None)
        after = getattr(error, "retry_after_s", None)
        refused = hasattr(error, "retry_after_s")
        text = f"{'refused' if refused else 'failed'} after {seconds:.3g} s: {said(error)}"
        text += f", Retry-After {after:.3g} s" if after is not None else ""
        text += f", {server}" if server else ""
        begun.note({"pizza.server_request.id": server, "pizza.retry_after_s": after})
        self._tell(
            "refused" if refused else "error",
            text,
            number,
            seconds=seconds,
            error=type(error).__name__,
            status=getattr(error, "status", None),
            retry_after_s=after,
            server_request=server,
        )

    def _attributes(
        self, operation: str, model: str, number: int, asked: dict[str, Any]
    ) -> dict[str, Any]:
        generation = self._request.generation
        writes = self._request.kind == "complete"
        found = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": self._backend.partition(":")[0],
            "gen_ai.request.model": model,
            "gen_ai.request.max_tokens": generation.max_tokens if writes else None,
            "gen_ai.request.temperature": float(generation.temperature) if writes else None,
            "gen_ai.request.seed": generation.seed if writes else None,
            "pizza.request.id": self._id,
            "pizza.request.kind": self._request.kind,
            "pizza.request.attempt": number,
            "pizza.attribution.id": self._work.get("pizza_attribution"),
            "pizza.row.id": self._work.get("pizza_row"),
        }
        if asked:
            messages = [
                {"role": m["role"], "parts": [{"type": "text", "content": m["content"]}]}
                for m in asked["prompt"]
            ]
            found["gen_ai.input.messages"] = json.dumps(messages)
        return found

    def _asked(self) -> dict[str, Any]:
        messages = [{"role": m.role, "content": m.text} for m in self._request.prompt.messages]
        return {"prompt": messages, "target": self._request.target}
