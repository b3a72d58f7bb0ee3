# SPDX-License-Identifier: Apache-2.0
"""What all batches of one backend have in common."""

from __future__ import annotations

from dataclasses import dataclass

from pizza_openai.batch_calls import Calls
from pizza_openai.batch_clock import Clock
from pizza_openai.batch_journal import Journal
from pizza_openai.batch_lines import Lines
from pizza_openai.batch_options import BatchOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The way to the Batch API; made by a backend, which closes what is in it.

    Attributes:
        name: The backend's name.
        calls: The calls of the two APIs.
        journal: Remembers what was handed over.
        lines: Writes and reads lines.
        options: How it is done.
        clock: Waits, and tells the time.
    """

    name: str
    calls: Calls
    journal: Journal
    lines: Lines
    options: BatchOptions
    clock: Clock
