# SPDX-License-Identifier: Apache-2.0
"""The same over a real Ray actor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="installed with the extra 'ray'")

_HERE = Path(__file__).resolve().parent


@pytest.mark.ray
@pytest.mark.slow
def test_three_gates_and_a_coordinator_that_dies():
    from ray_nodes import isolated

    folders = [_HERE.parent / "src", _HERE / "support", _HERE.parents[2] / "benchmarks"]
    done = subprocess.run(
        isolated([sys.executable, str(_HERE / "support" / "linked.py"), "600"]),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert (found["spent"], found["in_flight"], found["queued"]) == (600, 0, 0)
    assert found["stored"] == 5
    assert found["again"].startswith("LinkError: worker 'w0' cannot begin as incarnation 1")
    assert found["cap"].startswith("BudgetExceededError: the budget is used up: max_calls=601")
    assert found["barred"] == "AuthError: the key is wrong"
    assert found["gone"].startswith("LinkError: the coordinator of this run cannot be reached")
    assert found["store_gone"].startswith("LinkError: the coordinator of this run")
