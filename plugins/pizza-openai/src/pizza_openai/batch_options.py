# SPDX-License-Identifier: Apache-2.0
"""The options that ``openai-batch`` has beyond those of ``openai``, checked once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pizza.errors import ConfigError, UnknownNameError
from pizza_openai.options import Options

MAX_REQUESTS = 50_000
MAX_BYTES = 200_000_000
"""OpenAI's limits of one batch: requests, and bytes of its input file."""

_ON_CANCEL = ("cancel", "keep")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """What `BackendSettings.options` may hold besides the options of ``openai``.

    Attributes:
        journal: File that remembers which requests are in which batch, or ``None``: it is
            forgotten with the process. ``"off"`` in the options means ``None``.
        gather_s: Seconds without a new request after which a batch is handed over. The default is
            longer than the first request of a session is sent alone.
        poll_s: Seconds until a batch is looked at for the second time; grows by half every time.
        poll_max_s: The longest of these waits.
        attempts: Batches that a request may be in, while they end before it is run.
        on_cancel: What becomes of a batch whose caller is cancelled: ``"cancel"`` or ``"keep"``.
        max_requests: Most requests of a batch.
        max_bytes: Most bytes of an input file.
    """

    journal: Path | None = None
    gather_s: float = 6.0
    poll_s: float = 2.0
    poll_max_s: float = 60.0
    attempts: int = 3
    on_cancel: str = "cancel"
    max_requests: int = MAX_REQUESTS
    max_bytes: int = MAX_BYTES

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> tuple[BatchOptions, dict[str, Any]]:
        """Check the options of this kind, and give back the others.

        Raises:
            ConfigError: An option has a value that is not accepted.
            UnknownNameError: Neither kind has such an option.
        """
        known = {field.name for field in fields(cls)}
        others = {field.name for field in fields(Options)}
        for name in given:
            if name not in known | others:
                raise UnknownNameError("option of the backend openai-batch", name, known | others)
        values = {name: value for name, value in given.items() if name in known}
        rest = {name: value for name, value in given.items() if name not in known}
        journal = values.pop("journal", None)
        made = replace(cls(), **values)
        for name in ("gather_s", "poll_s", "poll_max_s"):
            _check(name, getattr(made, name), int | float, "a number of seconds greater than 0")
        for name in ("attempts", "max_requests", "max_bytes"):
            _check(name, getattr(made, name), int, "a whole number of at least 1")
        if made.on_cancel not in _ON_CANCEL:
            raise ConfigError(
                f"on_cancel={made.on_cancel!r} is not one of {', '.join(map(repr, _ON_CANCEL))}."
            )
        return replace(made, journal=_journal(journal)), rest


def default_journal() -> Path:
    """Where the journal is kept when the user names no place: beside the command line's cache."""
    import platformdirs

    cache = os.environ.get("PIZZA_CACHE")
    folder = Path(cache).parent if cache else platformdirs.user_cache_path("pizza", appauthor=False)
    return folder / "openai-batches.sqlite"


def _journal(given: Any) -> Path | None:
    if given is None:
        return default_journal()
    # "off" may have been read as JSON's false on its way here.
    if given is False or given == "off":
        return None
    if isinstance(given, str | Path) and str(given):
        return Path(given).expanduser()
    raise ConfigError(f"journal={given!r} is neither a path nor 'off'.")


def _check(name: str, value: Any, kind: Any, accepted: str) -> None:
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < float("inf"):
        raise ConfigError(f"{name}={value!r} is not {accepted}.")
