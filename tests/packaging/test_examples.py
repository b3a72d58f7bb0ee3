# SPDX-License-Identifier: Apache-2.0
"""The programs in examples/ run."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
RAY = FOLDER / "ray_bulk.py"
EXAMPLES = sorted(set(FOLDER.glob("*.py")) - {RAY})
LOCAL = sorted((FOLDER / "local").glob("*.py"))


def run(path, *arguments, cwd):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path), *arguments],
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_by_itself(path, tmp_path):
    assert "answer: " in run(path, cwd=tmp_path)


@pytest.mark.ray
@pytest.mark.slow
def test_it_runs_where_ray_is(tmp_path):
    pytest.importorskip("pizza_ray", reason="installed with the extra 'ray'")
    assert "answer: " in run(RAY, cwd=tmp_path)


@pytest.mark.torch
@pytest.mark.parametrize("path", LOCAL, ids=lambda path: path.stem)
def test_it_runs_where_torch_is(path, tmp_path):
    assert "answer: " in run(path, cwd=tmp_path)


def test_the_one_for_servers_talks_to_the_server_it_is_given(server, tmp_path):
    path = next(p for p in EXAMPLES if p.stem == "openai_compatible")
    before = sum(server.stats["requests"].values())
    run(path, "--base-url", server.base_url, "--model", server.model, cwd=tmp_path)
    assert sum(server.stats["requests"].values()) > before
