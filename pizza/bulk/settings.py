# SPDX-License-Identifier: Apache-2.0
"""How a run is made, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pizza.bulk.sources import Source
from pizza.errors import PizzaError
from pizza.limits import Spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a run is made; see `pizza.bulk.run`."""

    source: Source
    directory: Path
    model: Any
    options: Mapping[str, Any]
    session: Mapping[str, Any]
    workers: int = 16
    keep: str = "scores"
    part_rows: int = 512
    circuit: int = 5
    skip_bad_rows: bool = False
    retry_failed: bool = False
    resume: bool | None = None
    cache: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a run ended.

    Attributes:
        reason: ``"finished"``, ``"budget"``, ``"circuit"`` or ``"storage"``.
        message: What stopped it and what to do, or empty.
        rows: Rows of the input.
        done: Rows with a result.
        failed: Rows without one; ``failures.jsonl`` says why.
        spent: What all runs in the directory spent.
        seconds: How long this one took.
        directory: Where the results are.
        error: What stopped it, or ``None``.
    """

    reason: str
    message: str
    rows: int
    done: int
    failed: int
    spent: Spent
    seconds: float
    directory: Path
    error: PizzaError | None = None
