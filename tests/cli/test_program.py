# SPDX-License-Identifier: Apache-2.0
"""The command as a program of its own: terminals, pipes, encodings, Ctrl-C."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.commandline import PROMPT
from support.server import served_model

SHORT = "Eva has 4 blue hats. How many hats does Eva have?"
COMMAND = [sys.executable, "-m", "pizza.cli", "attribute"]

pty = pytest.importorskip("pty", reason="terminals are tested on POSIX")


def environment(**variables):
    return {**os.environ, "TERM": "xterm-256color", **variables}


# Opening the terminal in a session of its own makes it the one that Ctrl-C comes from.
# Ctrl-C counts again, in case these tests run in the background of a shell, where it is ignored.
IN_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.close(os.open(os.ttyname(2), os.O_RDWR))
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A program whose standard error and input are a terminal, and its output perhaps too."""

    def __init__(self, command, *, everything=False, **variables):
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, *command],
            stdin=theirs,
            stdout=theirs if everything else subprocess.PIPE,
            stderr=theirs,
            env=environment(**variables),
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        os.close(self._ours)

    def read_until(self, pattern):
        while not re.search(pattern, self.seen):
            if not self._read():
                raise AssertionError(f"{pattern!r} did not come: {self.seen[-500:]}")

    def press_ctrl_c(self):
        os.write(self._ours, b"\x03")

    def finish(self):
        """Read to the end; return the exit code and standard output."""
        while self._read():
            pass
        out = self._process.stdout.read().decode() if self._process.stdout else ""
        return self._process.wait(), out

    def _read(self):
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # how Linux says that the other end was closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


def piped(*arguments, **variables):
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(**variables), capture_output=True, check=False
    )


def test_ctrl_c_stops_everything_says_what_was_kept_and_the_next_run_goes_on():
    with served_model(latency="0.6") as server:
        arguments = ["--model", f"openai:{server.model}", "--base-url", server.base_url]
        command = [*COMMAND, *arguments, "--concurrency", "2", "--json", PROMPT]
        with Terminal(command) as terminal:
            terminal.read_until(r"\b[4-9]/17")
            terminal.press_ctrl_c()
            code, out = terminal.finish()
        assert (code, out) == (130, "")
        said = re.search(
            r"nothing is left running\. (\d+) answers .* kept in (\S+):", terminal.seen
        )
        assert said, terminal.seen
        assert int(said[1]) >= 5  # two about the whole prompt, three about parts of it
        assert Path(said[2]).exists()
        assert "Traceback" not in terminal.seen
        before = sum(server.stats["requests"].values())
        done = piped(*arguments, "--json", PROMPT)
        assert done.returncode == 0, done.stderr.decode()
        document = json.loads(done.stdout)
        assert document["cache_hits"] >= int(said[1])
        sent = sum(server.stats["requests"].values()) - before
        assert sent == document["calls"]
        # The answer, its score, the probe for scoring, and one for each of 17 words.
        assert document["cache_hits"] + document["calls"] == 20


def test_on_a_terminal_there_is_color_and_progress_that_goes_away():
    with Terminal(
        [*COMMAND, "--no-cache", SHORT], everything=True, COLORTERM="truecolor"
    ) as terminal:
        code, _ = terminal.finish()
    assert code == 0
    assert "opening embedded" in terminal.seen
    assert re.search(r"\x1b\[[0-9;]*48;2;\d+;\d+;\d+m", terminal.seen)
    assert "works against" in terminal.seen
    assert "after a unit" not in terminal.seen


def test_no_color_puts_the_scores_beside_the_words():
    with Terminal(
        [*COMMAND, "--no-cache", "--quiet", SHORT], everything=True, NO_COLOR="1"
    ) as terminal:
        code, _ = terminal.finish()
    assert code == 0
    assert not re.search(r"\x1b\[[0-9;]*[34]8;", terminal.seen)
    assert re.search(r"\w\[[+-]\d", terminal.seen)


def test_piped_output_is_plain_text_without_blanks_at_line_ends():
    done = piped("--no-cache", SHORT)
    assert done.returncode == 0, done.stderr.decode()
    assert b"\x1b" not in done.stdout
    assert done.stderr == b""
    assert not re.search(rb"[ \t]\n", done.stdout)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_is_not_utf8_gets_what_it_can_show(encoding):
    text = "Eva has 4 blaue Hüte 帽子. How many?"
    done = piped("--no-cache", text, PYTHONIOENCODING=encoding, PYTHONUTF8="0", COLUMNS="60")
    assert done.returncode == 0, done.stderr.decode()
    shown = done.stdout.decode(encoding)
    assert r"\u5e3d\u5b50" in shown
    assert "#" in shown, "bars are drawn in ASCII"
    assert max(len(line) for line in shown.partition("What to try")[0].splitlines()) <= 90


def test_json_is_ascii_whatever_the_encoding():
    done = piped("--no-cache", "--json", "帽子 4", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert json.loads(done.stdout)["prompt"]["messages"][0]["content"] == "帽子 4"


def test_a_reader_that_leaves_early_is_no_crash():
    with subprocess.Popen(
        [sys.executable, "-m", "pizza.cli", "plugins", "--no-load"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        process.stdout.close()
        said = process.stderr.read()
        process.wait()
    assert b"Traceback" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a full disk to write to")
@pytest.mark.parametrize("command", [["doctor"], ["attribute", "--no-cache", "--quiet", SHORT]])
def test_a_full_disk_is_an_error_and_not_a_crash(command):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [*COMMAND[:-1], *command],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "error: cannot write to standard output: No space left on device."
    ]


@pytest.mark.parametrize("on_path", [True, False])
def test_suggestions_call_the_program_as_it_was_called(on_path):
    script = Path(sys.executable).with_name("pizza")
    path = str(script.parent) if on_path else os.defpath
    done = subprocess.run(
        [script, "attribute", "--no-cache", SHORT],
        env=environment(PATH=path),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    hints = done.stdout.partition("What to try next")[2].splitlines()
    commands = [line.split()[0] for line in hints if " attribute " in line]
    assert commands
    assert set(commands) == {"pizza" if on_path else str(script)}
