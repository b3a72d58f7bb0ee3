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

_WORKERS = 16
_BATCH_WORKERS = 500
"""Rows that are worked on at the same time. Where a batch may take a day, what does not go with it
waits for the next one; a row of 40 requests takes about 300 KB while it waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a run is made; see `pizza.bulk.run`."""

    source: Source
    directory: Path
    model: Any
    options: Mapping[str, Any]
    session: Mapping[str, Any]
    workers: int | None = None
    keep: str = "scores"
    part_rows: int = 512
    circuit: int = 5
    skip_bad_rows: bool = False
    retry_failed: bool = False
    resume: bool | None = None
    cache: Path | None = None

    def rows_at_once(self, *, in_batches: bool = False) -> int:
        """Rows that are worked on at the same time.

        Args:
            in_batches: Whether the backend answers in batches that are handed over for later.
        """
        return self.workers or (_BATCH_WORKERS if in_batches else _WORKERS)


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
