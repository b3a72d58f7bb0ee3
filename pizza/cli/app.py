# SPDX-License-Identifier: Apache-2.0
"""The commands, put together."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pizza import __version__
from pizza.cli.attribute import attribute
from pizza.cli.doctor import doctor
from pizza.cli.estimate import estimate
from pizza.cli.evaluate import evaluate
from pizza.cli.export import export
from pizza.cli.logs import logged
from pizza.cli.merge import merge
from pizza.cli.plugins import plugins
from pizza.cli.reanalyze import reanalyze
from pizza.cli.run import run as run_rows

app = typer.Typer(
    name="pizza",
    help="Which parts of this prompt made the model say that?",
    no_args_is_help=True,
    add_completion=False,
    # Its tracebacks show local variables, and those may hold a key.
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(attribute)
app.command("run")(run_rows)
app.command()(estimate)
app.command()(merge)
app.command()(export)
app.command()(evaluate)
app.command()(reanalyze)
app.command()(plugins)
app.command()(doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pizza {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    log_file: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            envvar="PIZZA_LOG_FILE",
            help="Add to this file what happens; as JSON when it ends in .jsonl. Give it before "
            "the command.",
        ),
    ] = None,
    log_level: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            envvar="PIZZA_LOG_LEVEL",
            help="How much of it: warning, info (the beginning and the end), or debug (every "
            "request).",
        ),
    ] = "info",
) -> None:
    """Which parts of this prompt made the model say that?"""
    if log_file is not None:
        context.with_resource(logged(log_file, log_level.lower()))


def run() -> int:
    """Run the command line of this process and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal's encoding lacks is shown as an escape, not as a crash.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run()
        sys.stdout.flush()
    except OSError as error:
        # A full disk, for example. Python would try once more when it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            typer.echo(f"error: cannot write to standard output: {error.strerror}.", err=True)
        return 1
    return code


def _run() -> int:
    try:
        code = app(standalone_mode=True)
    except SystemExit as finished:
        code = finished.code
        if not isinstance(code, int):
            code = int(code is not None)
    return code if isinstance(code, int) else 0
