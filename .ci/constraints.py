# SPDX-License-Identifier: Apache-2.0
"""Write constraints.txt: exact versions of everything that the checks and the README install.

Run with ``tox run -e constraints``; commit what changes. pip resolves everything together, so
that one set of versions serves every environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
GROUPS = ("test", "bench", "lint", "torch", "peers", "serve", "optional", "ray", "ci")
PACKAGES = (
    ".[bulk,pandas,shapiq]",
    "./plugins/pizza-openai",
    "./plugins/pizza-embedded[serve]",
    "./plugins/pizza-local",
    "./plugins/pizza-ray",
)
# A public version that every index offers, whichever accelerator its default build is for. Later
# ones are not there as small CPU builds.
TORCH = "torch==2.13.0"
HEADER = """\
# Exact versions of everything that the checks and the README install.
# Written by `tox run -e constraints`; do not edit.
"""


def resolve(*arguments: str) -> dict[str, str]:
    """Name -> version of what pip would install."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    command += ["--quiet", "--report", "-", *arguments]
    report = json.loads(subprocess.check_output(command, cwd=ROOT, text=True))
    found = [item["metadata"] for item in report["install"]]
    return {item["name"].lower().replace("_", "-"): item["version"] for item in found}


def main() -> None:
    """Resolve, and write the file."""
    groups = [argument for group in GROUPS for argument in ("--group", group)]
    versions = resolve(*groups, TORCH, *PACKAGES)
    versions |= resolve("--no-deps", "--group", "ranks")
    lines = [
        f"{name}=={version.partition('+')[0]}"
        for name, version in sorted(versions.items())
        if not name.startswith("pizza-")
    ]
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
