# SPDX-License-Identifier: Apache-2.0
"""What ``pizza run`` and ``pizza estimate`` were asked to do, and the calls that it amounts to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pizza.cli.measuring import Measuring
from pizza.errors import ConfigError
from pizza.specs import parse_choice

if TYPE_CHECKING:
    from pizza.bulk import Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder(Measuring):
    """The options of both commands, as they were given.

    The attributes are the commands' options; `output` is the run directory.
    """

    rows: str
    prompt_column: str | None
    id_column: str | None
    target_column: str | None
    split: str | None
    skip_bad_rows: bool
    methods: Sequence[str]
    workers: int | None = None
    engine: str = "local"
    keep: str = "scores"
    circuit: int = 5
    retry_failed: bool = False
    resume: bool = False
    dry_run: bool = False
    sample: int | None = None

    @property
    def directory(self) -> Path | None:
        """The run directory."""
        return self.output

    def columns(self) -> Columns:
        """Which columns mean what."""
        from pizza.bulk import Columns

        return Columns(prompt=self.prompt_column, id=self.id_column, target=self.target_column)

    def run_options(self) -> dict[str, Any]:
        """Keyword arguments of `pizza.bulk.run`.

        Raises:
            ConfigError: An option's value is not usable.
        """
        if len(self.methods) > 1:
            raise ConfigError(
                "a run has one method; several are compared by pizza estimate (or --dry-run)."
            )
        method = parse_choice(self.methods[0]) if self.methods else None
        return {
            **self.session_options(self.cache),
            "model": self.model,
            "options": {**self.measuring_options(), "method": method},
            "columns": self.columns(),
            "split": self.split,
            "workers": self.workers,
            "engine": self.engine,
            "keep": self.keep,
            "circuit": self.circuit,
            "skip_bad_rows": self.skip_bad_rows,
            "retry_failed": self.retry_failed,
            "resume": self.resume or None,
        }

    def estimate_options(self) -> dict[str, Any]:
        """Keyword arguments of `pizza.bulk.estimate`.

        Raises:
            ConfigError: An option's value is not usable.
        """
        return {
            **self.session_options(self.cache),
            "model": self.model,
            "options": self.measuring_options(),
            "methods": [parse_choice(method) for method in self.methods],
            "columns": self.columns(),
            "split": self.split,
            "directory": self.directory,
            "sample": self.sample,
            "skip_bad_rows": self.skip_bad_rows,
        }
