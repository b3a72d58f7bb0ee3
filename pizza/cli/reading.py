# SPDX-License-Identifier: Apache-2.0
"""Reads the result that a command was given."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pizza.attribution import Attribution
from pizza.errors import ConfigError, ResultFormatError


def read_result(path: Path) -> Attribution:
    """The attribution in a file that ``pizza attribute`` wrote; ``-`` is standard input.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    try:
        if str(path) == "-":
            return Attribution.from_dict(json.loads(sys.stdin.buffer.read()))
        return Attribution.load(path)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError, ResultFormatError) as error:
        raise ConfigError(
            f"{path} holds no attribution: {error} Make one: pizza attribute PROMPT --output "
            "result.json"
        ) from error
