# SPDX-License-Identifier: Apache-2.0
"""Spans, where the program that uses pizza has set up OpenTelemetry; otherwise nothing.

Nothing of OpenTelemetry is imported here: a program that has set up a tracer provider has imported
it already, and one that has not gets no spans.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pizza import __version__

_API = "opentelemetry.trace"


class Span:
    """One span, or none.

    Args:
        span: An OpenTelemetry span, or ``None``.
    """

    __slots__ = ("_span",)

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def note(self, attributes: Mapping[str, Any]) -> None:
        """Set attributes; those that are ``None`` are left out."""
        if self._span is not None:
            self._span.set_attributes(_given(attributes))

    def failed(self, error: BaseException, *, content: bool) -> None:
        """Mark the span as failed.

        Args:
            error: Why.
            content: Whether its message may be told; servers repeat parts of prompts in theirs.
        """
        if self._span is None:
            return
        kind = type(error).__name__
        status = sys.modules[_API].StatusCode.ERROR
        self._span.set_attribute("error.type", kind)
        said = {"exception.type": f"{type(error).__module__}.{type(error).__qualname__}"}
        if content:
            said["exception.message"] = str(error)
        self._span.set_status(status, str(error) if content else kind)
        self._span.add_event("exception", said)


NO_SPAN = Span()


def _given(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


class _Known:
    """The tracer of the provider that was seen last."""

    provider: Any = None
    tracer: Any = None


def tracer() -> Any:
    """The tracer of the provider that is set up, or ``None``."""
    api = sys.modules.get(_API)
    if api is None:
        return None
    provider = api.get_tracer_provider()
    if provider is not _Known.provider:
        idle = isinstance(provider, (api.ProxyTracerProvider, api.NoOpTracerProvider))
        _Known.tracer = None if idle else provider.get_tracer("pizza", __version__)
        _Known.provider = provider
    return _Known.tracer


@contextmanager
def span(
    name: str, attributes: Mapping[str, Any], *, to_server: bool = False, content: bool = False
) -> Iterator[Span]:
    """A span around the block, which is its children's parent; errors are recorded.

    Args:
        name: Its name.
        attributes: As for `Span.note`.
        to_server: Whether the block waits for a server's answer.
        content: Whether messages of errors may be told.
    """
    found = tracer()
    if found is None:
        yield NO_SPAN
        return
    kinds = sys.modules[_API].SpanKind
    with found.start_as_current_span(
        name,
        kind=kinds.CLIENT if to_server else kinds.INTERNAL,
        attributes=_given(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as begun:
        made = Span(begun)
        try:
            yield made
        except BaseException as error:
            made.failed(error, content=content)
            raise
