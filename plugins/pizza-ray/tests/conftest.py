# SPDX-License-Identifier: Apache-2.0
"""Makes the tests' own helpers and the benchmarks' server importable."""

import importlib.util
import sys
from pathlib import Path

# Where the plugin is not installed there is nothing here to be tested.
collect_ignore_glob = [] if importlib.util.find_spec("pizza_ray") else ["test_*.py"]

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[2]
for _folder in (_HERE / "support", _ROOT / "tests" / "engine" / "support", _ROOT / "benchmarks"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))
