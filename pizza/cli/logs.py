# SPDX-License-Identifier: Apache-2.0
"""``--log-file``: what happens, request by request, in a file and never on the screen."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from pizza.render.text import harmless

LEVELS = ("debug", "info", "warning", "error")


@contextmanager
def logged(path: Path, level: str) -> Iterator[None]:
    """Log records of pizza are added to a file while the block runs.

    Args:
        path: The file: lines for people, or a JSON object per line where it ends in ``.jsonl``.
        level: The least that is kept, one of `LEVELS`.

    Raises:
        BadParameter: It cannot be written, or there is no such level.
    """
    if level not in LEVELS:
        raise typer.BadParameter(f"--log-level is one of {', '.join(LEVELS)}, not {level!r}.")
    try:
        handler = _ToFile(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise typer.BadParameter(
            f"cannot write the log file {path}: {error.strerror or error}."
        ) from error
    handler.setLevel(level.upper())
    handler.setFormatter(_Fields() if path.suffix.lower() == ".jsonl" else _Lines())
    logger = logging.getLogger("pizza")
    before = logger.level
    logger.setLevel(level.upper())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        # What a full disk did not take is not taken when closing either.
        with suppress(OSError):
            handler.close()


class _ToFile(logging.FileHandler):
    """Gives up when the file cannot be written: a log must not be what stops or floods a run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        logging.getLogger("pizza").removeHandler(self)
        typer.echo(f"note: cannot write to {self.baseFilename}: nothing more is logged.", err=True)


class _Lines(logging.Formatter):
    """One line per record."""

    def format(self, record: logging.LogRecord) -> str:
        text = harmless(record.getMessage(), keep_newlines=False)
        return f"{_when(record)} {record.levelname} {record.name}: {text}"


class _Fields(logging.Formatter):
    """One JSON object per record, with the fields that it carries."""

    def format(self, record: logging.LogRecord) -> str:
        found = {
            "at": _when(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{k: v for k, v in vars(record).items() if k.startswith("pizza_")},
        }
        return json.dumps(found, default=str)


def _when(record: logging.LogRecord) -> str:
    at = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
