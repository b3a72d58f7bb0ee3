# SPDX-License-Identifier: Apache-2.0
"""What somebody sees while a run goes on."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pizza.cli.run_order import RunOrder
from pizza.limits import Budget
from pizza.render.text import harmless

if TYPE_CHECKING:
    from pizza.events import Event, Pace


@dataclass(slots=True)
class Board:
    """What the display knows; belongs to it.

    Attributes:
        budget: The caps.
        rpm: The requests per minute that were asked for, or ``None``.
        pace: The newest.
        failures: Failures of this run by kind.
    """

    budget: Budget
    rpm: float | None = None
    pace: Pace | None = None
    failures: Counter[str] = field(default_factory=Counter)

    def take(self, event: Event) -> None:
        """Take an event in."""
        from pizza.events import Pace, RowFailed

        if isinstance(event, Pace):
            self.pace = event
        elif isinstance(event, RowFailed):
            self.failures[type(event.error).__name__] += 1

    def __rich__(self) -> RenderableType:
        if self.pace is None:
            return Text("reading the input")
        rows = Table.grid(padding=(0, 2))
        rows.add_row("prompts", _bar(self.pace), self._prompts(self.pace))
        rows.add_row("requests", "", self._requests(self.pace))
        rows.add_row("spent", "", self._spent(self.pace))
        rows.add_row("left", "", _left(self.pace))
        return Group(rows)

    def _prompts(self, pace: Pace) -> str:
        kinds = ", ".join(f"{harmless(kind)} {n:,}" for kind, n in self.failures.most_common(3))
        failed = f", {pace.failed:,} failed" if pace.failed else ""
        return f"{pace.done:,} of {pace.total:,}{failed}{f' ({kinds})' if kinds else ''}"

    def _requests(self, pace: Pace) -> str:
        limit = "" if self.rpm is None else f" of {self.rpm / 60:,.1f}"
        return (
            f"{pace.per_second:,.1f}{limit} per second, {pace.in_flight:,} under way, "
            f"{pace.calls:,} sent, {pace.cache_hits:,} known"
        )

    def _spent(self, pace: Pace) -> str:
        spent, budget = pace.spent, self.budget
        cost = f"${spent.cost:,.2f}" if spent.cost or budget.max_cost else ""
        return ", ".join(
            text + ("" if cap is None else f" of {cap}")
            for text, cap in (
                (cost, None if budget.max_cost is None else f"${budget.max_cost:,.2f}"),
                (f"{spent.calls:,} requests", _cap(budget.max_calls)),
                (f"{spent.tokens:,} tokens", _cap(budget.max_tokens)),
            )
            if text
        )


@contextmanager
def displayed(
    console: Console, order: RunOrder, budget: Budget
) -> Iterator[Callable[[Event], None]]:
    """A live display on standard error, when somebody is there to see it."""
    board = Board(budget=budget, rpm=order.rpm)
    if order.quiet or not console.is_terminal:
        yield board.take
        return
    with Live(
        board,
        console=console,
        transient=True,
        refresh_per_second=2,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield board.take


def _bar(pace: Pace) -> ProgressBar:
    return ProgressBar(total=max(1, pace.total), completed=pace.done + pace.failed, width=20)


def _left(pace: Pace) -> str:
    if pace.left_s is None:
        return "not known yet"
    return str(dt.timedelta(seconds=round(pace.left_s)))


def _cap(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"
