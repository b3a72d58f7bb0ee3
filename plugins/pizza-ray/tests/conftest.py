# SPDX-License-Identifier: Apache-2.0
"""Makes the tests' own helpers and the benchmarks' server importable."""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[2]
for _folder in (_HERE / "support", _ROOT / "tests" / "engine" / "support", _ROOT / "benchmarks"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))
