# SPDX-License-Identifier: Apache-2.0
"""Properties of every file in the repository."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPDX = "# SPDX-License-Identifier: Apache-2.0"
LOCAL = re.compile(
    # Home and mount folders of somebody's machine, private networks, and package mirrors.
    r"(?<![\w.])/(?:home|Users|root|work|mnt|opt)/[a-z]"
    r"|\b(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d{1,3}(?:\.\d{1,3})?\b"
    r"|\b(?:extra-)?index-url\s*=|\bfind-links\b"
)
KEYS = re.compile(r"\bsk-(?:proj-)?[A-Za-z0-9]{24,}|-----BEGIN [A-Z ]*PRIVATE KEY")


def tracked():
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def texts():
    for path in tracked():
        try:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_every_python_file_begins_with_its_licence():
    without = [
        str(path)
        for path, text in texts()
        if path.suffix == ".py" and text.partition("\n")[0] != SPDX
    ]
    assert without == []


def test_no_file_knows_the_machine_it_was_written_on():
    found = [
        f"{path}: {match[0]}"
        for path, text in texts()
        for match in LOCAL.finditer(text)
        if path != Path(__file__).relative_to(ROOT)
    ]
    assert found == []


def test_no_file_holds_a_key():
    # Tests that keys stay hidden need keys to hide: made-up ones.
    found = [str(path) for path, text in texts() if "tests" not in path.parts and KEYS.search(text)]
    assert found == []


def test_no_file_is_large_except_the_weights():
    large = {
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.stat().st_size > 500_000 and path.suffix != ".safetensors"
    }
    assert large == set()


def test_no_file_has_merge_marks_or_postponed_work():
    marks = re.compile(r"^(?:<{7}|>{7}) |\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b", re.MULTILINE)
    found = [
        f"{path}: {match[0]}"
        for path, text in texts()
        if path.suffix in {".py", ".md", ".toml", ".ini"}
        for match in marks.finditer(text)
    ]
    assert found == []
