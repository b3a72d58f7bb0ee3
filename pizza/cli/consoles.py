# SPDX-License-Identifier: Apache-2.0
"""Where output goes: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from pizza.render.text import harmless
from pizza.render.view import View


def out() -> Console:
    """Standard output, for people."""
    return Console(highlight=False, markup=False, emoji=False)


def err() -> Console:
    """Standard error: progress, notes and errors."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def view_for(console: Console, *, top: int = 8, everything: bool = False) -> View:
    """What this console can show."""
    return View(
        color=console.is_terminal and not console.no_color and console.color_system is not None,
        unicode=console.encoding.lower().replace("-", "") == "utf8",
        width=console.width,
        top=top,
        everything=everything,
    )


def show(console: Console, renderable: RenderableType) -> None:
    """Print; into a file or a pipe without the blanks that fill lines up."""
    if console.is_terminal:
        console.print(renderable)
        return
    with console.capture() as captured:
        console.print(renderable)
    for line in captured.get().splitlines():
        console.out(line.rstrip(), highlight=False)


def write_json(document: Any) -> None:
    """One JSON document and a line end on standard output, ASCII only."""
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
    sys.stdout.flush()


def note(text: str, *, console: Console | None = None) -> None:
    """Something to know, on standard error."""
    (console or err()).print(Text(f"note: {harmless(text)}", style="yellow"), soft_wrap=True)


@contextmanager
def orderly(console: Console | None = None) -> Iterator[None]:
    """Keep standard output for the result.

    What plugins print goes to standard error; warnings and log records become notes.

    Args:
        console: Standard error, where it has a live display: notes are printed above that.
    """

    class ToNotes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note(record.getMessage(), console=console)

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        note(str(message), console=console)

    handler = ToNotes(level=logging.WARNING)
    logger = logging.getLogger("pizza")
    logger.addHandler(handler)
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        logger.removeHandler(handler)
