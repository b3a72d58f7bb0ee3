# SPDX-License-Identifier: Apache-2.0
"""What a process of the bulk benchmark has taken, without anything that has to be installed."""

from __future__ import annotations

import re
import resource
import time
from pathlib import Path


def used() -> dict[str, float]:
    """CPU in seconds, peak memory in MB."""
    return {"cpu_s": time.process_time(), "peak_mb": _peak_kb() / 1024}


def _peak_kb() -> int:
    # ru_maxrss of a process begins with what its parent had: exec does not reset it.
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="ascii"))
        if found:
            return int(found.group(1))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
