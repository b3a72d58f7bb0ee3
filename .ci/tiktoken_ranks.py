# SPDX-License-Identifier: Apache-2.0
"""Put tiktoken's rank files into a folder, from a package that carries them.

tiktoken fetches its ranks from the network on first use and checks their SHA-256 itself. Tests set
``TIKTOKEN_CACHE_DIR`` to the folder, so that they use the real ranks and no network.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# tiktoken's own file names: o200k_base and cl100k_base.
NAMES = (
    "fb374d419588a4632f3f557e76b4b70aebbca790",
    "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
)
PREFIX = "llama_index/core/_static/tiktoken_cache/"


def main() -> None:
    """Download the carrier and unpack the two files, unless they are there."""
    folder = Path(sys.argv[1])
    if all((folder / name).exists() for name in NAMES):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", temporary]
        command += ["-c", "constraints.txt", "llama-index-core"]
        subprocess.run(command, check=True)
        wheel = next(Path(temporary).glob("llama_index_core-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            for name in NAMES:
                (folder / name).write_bytes(archive.read(PREFIX + name))


if __name__ == "__main__":
    main()
