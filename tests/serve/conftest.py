# SPDX-License-Identifier: Apache-2.0
"""Where examples/serve is found: a package in a folder of programs, not an installed one."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "examples"))
