# SPDX-License-Identifier: Apache-2.0
"""What a run's results depend on, as plain values that can be compared."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pizza.abc import Backend
from pizza.bulk.census import Census
from pizza.bulk.sources import Source
from pizza.errors import ConfigError
from pizza.limits import Budget
from pizza.prompt import Unit
from pizza.specs import Choice, parse_choice

_PARTS = ("units", "method", "perturbation")
_SECRET = re.compile(r"key|token|secret|header|password|auth", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_WITHOUT_EFFECT = frozenset(("on_progress", "on_partial"))


def configuration(
    source: Source,
    census: Census,
    model: str | Backend,
    *,
    base_url: str | None,
    backend_options: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    keep: str,
) -> dict[str, Any]:
    """Everything that a run must have in common with the one that it goes on with.

    Limits, caps, attempts and the number of workers are not in it. Nothing secret is.
    """
    shown = {k: v for k, v in (backend_options or {}).items() if not _SECRET.search(k)}
    return {
        "model": model if isinstance(model, str) else model.identity,
        "base_url": None if base_url is None else _CREDENTIALS.sub("", base_url),
        "backend_options": described(shown),
        "options": {
            name: described(_named(name, value))
            for name, value in sorted(options.items())
            if value is not None and name not in _WITHOUT_EFFECT
        },
        "input": {
            "name": source.name,
            "rows": census.rows,
            "digest": census.digest,
            "columns": source.columns.to_dict(),
        },
        "keep": keep,
    }


def described(value: Any) -> Any:
    """A value that was given as an option, as plain JSON values; equal for equal meanings."""
    if isinstance(value, Choice):
        return {"name": value.name, **described(value.options)}
    if isinstance(value, Budget):
        return str(value)
    if isinstance(value, Unit):
        return [value.message, value.start, value.end, value.label]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: described(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): described(v) for k, v in sorted(value.items())}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [described(v) for v in value]
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    # An object of somebody's class: its repr may hold an address, which differs every time.
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _named(name: str, value: Any) -> Any:
    """Names in the form that options give them, so that two ways to write one thing are equal."""
    if isinstance(value, str) and name in _PARTS:
        return parse_choice(value)
    if name == "metrics" and isinstance(value, (str, Choice)):
        value = [value]
    if name == "metrics" and isinstance(value, Sequence):
        return [parse_choice(v) if isinstance(v, str) else v for v in value]
    if name == "budget":
        return Budget.of(value)
    return value


def refuse_difference(old: Mapping[str, Any], new: Mapping[str, Any], where: str) -> None:
    """Compare a run's configuration with the one in its directory.

    Raises:
        ConfigError: They differ; the message shows how.
    """
    found = list(_differences(old, new, ""))
    if not found:
        return
    lines = "\n".join(f"  {name}: {_shown(before)} -> {_shown(now)}" for name, before, now in found)
    raise ConfigError(
        f"{where} was started with another configuration:\n{lines}\n"
        "Results of both in one table would not be comparable. Use the old one again, or another "
        f"directory; with --cache {where}/responses.sqlite what was answered here is not paid for "
        "again."
    )


def _differences(old: Any, new: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            inner = f"{name}.{key}" if name else key
            yield from _differences(old.get(key), new.get(key), inner)
    elif old != new:
        yield name, old, new


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
