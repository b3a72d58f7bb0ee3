# SPDX-License-Identifier: Apache-2.0
"""Install built wheels in a clean environment and do there what the README's first line does.

This is the check that the distributions hold everything they need: package data, entry points,
declared dependencies.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PROMPT = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"
HEAVY = ("torch", "transformers", "pytest")


def main() -> None:
    """Build the environment, run the checks, say what was seen."""
    built = sorted(Path(sys.argv[1]).resolve().glob("*.whl"))
    local = [wheel for wheel in built if wheel.name.startswith("pizza_local")]
    wheels = [wheel for wheel in built if wheel not in local]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        venv.create(folder / "venv", with_pip=True, upgrade_deps=True)
        scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        constraints = Path("constraints.txt").resolve()

        def run(*command: str | Path) -> str:
            # Not the checkout as working folder: what is imported must be what was installed.
            text = subprocess.check_output(
                [str(part) for part in command], cwd=folder, encoding="utf-8"
            )
            shown = text if len(text) < 5000 else f"{text[:500]} [... {len(text)} characters ...]\n"
            print(f"$ {' '.join(Path(str(part)).name for part in command)}\n{shown}")
            return text

        run(scripts / "python", "-m", "pip", "install", "-q", "-c", constraints, *wheels)
        installed = {
            item["name"]
            for item in json.loads(run(scripts / "python", "-m", "pip", "list", "--format=json"))
        }
        assert not installed.intersection(HEAVY), f"too much was installed: {sorted(installed)}"
        run(scripts / "pizza", "attribute", "--no-cache", PROMPT)
        document = json.loads(run(scripts / "pizza", "attribute", "--no-cache", "--json", PROMPT))
        answer = document["output"]["text"].strip()
        assert answer.startswith("5"), f"the embedded model answered {answer!r}, not 5"
        run(scripts / "pizza", "plugins")
        run(scripts / "pizza", "doctor")
        run(scripts / "python", "-m", "pip", "install", "-q", "-c", constraints, *wheels, *local)
        find = "import pizza_embedded; print(pizza_embedded.__path__[0])"
        weights = Path(run(scripts / "python", "-c", find).strip()) / "weights"
        model = ("--model", f"local:{weights}")
        run(scripts / "pizza", "attribute", *model, "--method", "saliency", "--no-cache", PROMPT)


if __name__ == "__main__":
    main()
