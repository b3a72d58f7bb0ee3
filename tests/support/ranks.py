# SPDX-License-Identifier: Apache-2.0
"""tiktoken's real ranks for tests, without fetching them from where tiktoken does.

The package llama-index-core carries them under the file names that tiktoken's cache uses, and
tiktoken checks their content itself. Nothing of that package is imported or shipped.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CARRIER = "llama-index-core==0.14.25"
NAMES = (
    "fb374d419588a4632f3f557e76b4b70aebbca790",  # o200k_base
    "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",  # cl100k_base
)
_INSIDE = "llama_index/core/_static/tiktoken_cache/"
_DOWNLOAD_S = 120


@functools.cache
def ranks_folder() -> Path | None:
    """A folder with the ranks of o200k_base and cl100k_base, or ``None`` when there is no way.

    Looks in ``TIKTOKEN_CACHE_DIR``, then in a folder under the system's temporary one, which is
    filled by ``pip download`` once.
    """
    given = os.environ.get("TIKTOKEN_CACHE_DIR")
    if given and _complete(Path(given)):
        return Path(given)
    folder = Path(tempfile.gettempdir()) / "pizza-test-ranks"
    if not _complete(folder) and not _download(folder):
        return None
    return folder


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in NAMES)


def _download(folder: Path) -> bool:
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", temporary]
        try:
            subprocess.run(
                [*command, CARRIER], check=True, capture_output=True, timeout=_DOWNLOAD_S
            )
            wheel = next(Path(temporary).glob("llama_index_core-*.whl"))
        except (subprocess.SubprocessError, OSError, StopIteration):
            return False
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            for name in NAMES:
                # Other test runs may do the same at the same time: put whole files in place.
                part = folder / f"{name}.{os.getpid()}"
                part.write_bytes(archive.read(_INSIDE + name))
                part.replace(folder / name)
    return True
