# SPDX-License-Identifier: Apache-2.0
"""The commands that make the tables of the docs: the numbers of agreement hold, benchmarks run."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow]

ROOT = Path(__file__).parents[3]


def run(*command):
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=540
    )


@pytest.mark.timeout(600)
def test_every_method_is_within_rounding_of_its_formula(tmp_path):
    page = tmp_path / "agreement.md"
    done = run(ROOT / "benchmarks" / "agreement.py", "--write", page)
    assert done.returncode == 0, done.stderr
    written = page.read_text(encoding="utf-8")
    methods = [line.split("|")[1].strip(" `") for line in written.splitlines() if "| `" in line[:3]]
    from pizza_local.methods import SPECS

    assert {name for name, _, _ in SPECS} <= set(methods)
    assert done.stdout.strip() == written.strip()


@pytest.mark.timeout(600)
def test_the_benchmark_runs_and_prints_its_table():
    pytest.importorskip("captum")
    pytest.importorskip("inseq")
    done = run(ROOT / "benchmarks" / "local.py", "--small", "--rounds", "1", "--cells", "12/4")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| 12/4 |")]
    for row in (
        "gradients",
        "captum-gxa",
        "inseq",
        "leave-one-out",
        "captum-ablation",
        "captum-ig",
    ):
        assert any(f"| {row} |" in line for line in lines), row
    counted = [line for line in lines if "counted passes" in line or "tokens computed" in line]
    assert len(counted) == 2
    assert all(line.endswith("| yes |") for line in counted)
