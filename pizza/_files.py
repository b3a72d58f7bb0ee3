# SPDX-License-Identifier: Apache-2.0
"""Results as JSON files: written whole or not at all, read within bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pizza.errors import ResultFormatError

MAX_FILE_BYTES = 1 << 30
"""A result file comes from anywhere: nothing honest is larger, and nothing may kill the reader."""


def write_json(path: str | Path, data: Any) -> None:
    """Write plain JSON values as a file, whole or not at all."""
    target = Path(path)
    temporary = target.with_name(target.name + ".part")
    temporary.write_text(json.dumps(data, allow_nan=False), encoding="utf-8")
    temporary.replace(target)


def read_json(path: str | Path, noun: str) -> Any:
    """Read what `write_json` wrote.

    Args:
        path: The file.
        noun: What it should hold.

    Raises:
        ResultFormatError: It is too large, or no JSON file.
    """
    source = Path(path)
    if source.stat().st_size > MAX_FILE_BYTES:
        raise ResultFormatError(f"{source} is larger than {MAX_FILE_BYTES} bytes: no {noun} is.")
    try:
        return json.loads(source.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ResultFormatError(f"{source} is not a JSON file: {error}.") from error
