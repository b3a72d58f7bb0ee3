# SPDX-License-Identifier: Apache-2.0
"""The command line, run in this process or as a program of its own."""

import os
import sys

import pytest
from support.commandline import Input, Outcome

from pizza.cli.app import app


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """No key, no cache and no terminal of whoever runs the tests."""
    for name in [n for n in os.environ if n.startswith(("OPENAI_", "PIZZA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIZZA_CACHE", str(tmp_path / "cache" / "responses.sqlite"))
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pizza_command(capsys, monkeypatch):
    """Run ``pizza ...`` in this process."""

    def run(*arguments, data=b"", terminal=False):
        monkeypatch.setattr(sys, "stdin", Input(data, terminal=terminal))
        capsys.readouterr()
        try:
            app([str(a) for a in arguments], standalone_mode=True)
            code = 0
        except SystemExit as finished:
            code = finished.code or 0
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
