# SPDX-License-Identifier: Apache-2.0
"""What a client is told: plain JSON values, and their way onto the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import isfinite
from typing import TYPE_CHECKING, Any

import pizza
from pizza import errors
from serve.rules import AskedTooMuchError, FullError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Event = tuple[str, dict[str, Any]]
"""A name and its data."""

DIGITS = 6
_LATER = (
    errors.TransientError,
    errors.RetriesExhaustedError,
    errors.SessionClosedError,
    TimeoutError,
    FullError,
)
HEARTBEAT = b":\n\n"


def on_the_wire(event: Event) -> bytes:
    """A server-sent event: JSON has no line breaks outside of escapes, so one data line will do."""
    name, data = event
    return f"event: {name}\ndata: {json.dumps(data, allow_nan=False)}\n\n".encode()


class Narrator:
    """Tells of one attribution: the units, the output once it is known, scores, the result."""

    def __init__(self) -> None:
        self._units_told = self._output_told = False

    def tell(self, step: pizza.Partial | pizza.Attribution) -> Iterator[Event]:
        """The events that a step is worth."""
        if isinstance(step, pizza.Attribution):
            yield "attribution", result(step)
            return
        if not self._units_told:
            self._units_told = True
            # Code points, as Python counts them; JavaScript counts UTF-16 units.
            yield "units", {"units": [[unit.start, unit.end] for unit in step.units]}
        if step.output is not None and not self._output_told:
            self._output_told = True
            yield "output", {"text": step.output.text}
        progress = step.progress
        yield (
            "scores",
            {
                "scores": numbers(step.unit_scores),
                "done": progress.done,
                "total": progress.total,
                "calls": progress.calls,
                "cache_hits": progress.cache_hits,
            },
        )


def result(attribution: pizza.Attribution) -> dict[str, Any]:
    """What the page shows; `Attribution.to_dict` holds all there is, to be stored."""
    errors_of = attribution.standard_errors
    return {
        "metric": attribution.metric,
        "method": attribution.provenance["method"]["name"],
        "units": [[unit.start, unit.end] for unit in attribution.units],
        "scores": numbers(attribution.unit_scores),
        "standard_errors": None if errors_of is None else numbers(errors_of[0]),
        "output": {"text": attribution.output.text, "tokens": list(attribution.output_tokens)},
        "calls": attribution.calls,
        "cache_hits": attribution.cache_hits,
        "cost": attribution.cost,
        "warnings": list(attribution.warnings),
    }


def failure(error: Exception) -> Event:
    """An error as an event: pizza's messages say what to do."""
    return "error", explained(error)


def explained(error: Exception) -> dict[str, Any]:
    """The kind of an error, its message, and whether the same request may work later."""
    later = isinstance(error, _LATER)
    return {"type": type(error).__name__, "message": str(error), "try_again": later}


def status_of(error: Exception) -> int:
    """The HTTP status of an error before the first event."""
    if isinstance(error, errors.ConfigError | AskedTooMuchError):
        return 422
    if isinstance(error, FullError):
        return 429
    if isinstance(error, TimeoutError):
        return 504
    return 503 if isinstance(error, errors.SessionClosedError) else 502


def numbers(values: NDArray[Any]) -> list[float | None]:
    """JSON has no NaN: what is not known is null."""
    return [round(x, DIGITS) if isfinite(x) else None for x in values.tolist()]
