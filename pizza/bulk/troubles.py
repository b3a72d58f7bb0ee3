# SPDX-License-Identifier: Apache-2.0
"""What becomes of a row that failed: noted, tried again another time, or a reason to stop."""

from __future__ import annotations

import time
from typing import Any

from pizza.bulk.circuit import Circuit, may_pass
from pizza.bulk.directory import RunDirectory
from pizza.bulk.rows import Fault, Row
from pizza.errors import BudgetExceededError, BudgetTooSmallError, CacheError, PizzaError
from pizza.limits import Budget


class Troubles:
    """Decides over failures; belongs to one run.

    Attributes:
        reason: Why the run stops, or ``"finished"``.
        error: What stops it, or ``None``.

    Args:
        directory: Where failures are noted.
        circuit: Rows in a row that fail for a reason that is not theirs; 0 = never.
        budget: The caps of the run.
    """

    def __init__(self, directory: RunDirectory, circuit: int, budget: Budget) -> None:
        self._directory = directory
        self._circuit = Circuit(circuit)
        self._budget = budget
        self._suspicious: list[dict[str, Any]] = []
        self.reason = "finished"
        self.error: PizzaError | None = None

    @property
    def hopeless(self) -> bool:
        """Whether what is under way is given up, too: it can only fail, or be paid for twice."""
        return self.reason in ("circuit", "storage")

    def stop(self, reason: str, error: PizzaError) -> None:
        """Stop for a reason; the first one counts."""
        if self.reason == "finished":
            self.reason, self.error = reason, error

    def no_room(self, error: OSError) -> None:
        """Stop because something cannot be written."""
        path = self._directory.path
        failure = CacheError(
            f"cannot write to {path}: {error.strerror or error}. Make room, and run the same "
            "command again: it goes on from here and pays for nothing twice."
        )
        failure.__cause__ = error
        self.stop("storage", failure)

    def succeeded(self) -> None:
        """A row has a result: failures before it were their prompts' own."""
        self._circuit.succeeded()
        self.note()

    def failed(self, row: Row, place: int, error: PizzaError) -> int:
        """A row failed; returns by how much the number of failed rows changes.

        Raises:
            OSError: The failure cannot be noted.
        """
        if isinstance(error, BudgetExceededError) or self._too_small_for(error):
            # Rows under way go on: their answers are paid for. No further one is begun.
            self.stop("budget", self._cap_reached(error))
            return 0
        if isinstance(error, CacheError):
            self.stop("storage", error)
            return 0
        self._circuit.failed(error)
        self._suspicious.append(_failure(row, place, error))
        if self._circuit.open:
            # They are to be done again: it was not their fault.
            dropped = len(self._suspicious)
            self._suspicious.clear()
            self.stop("circuit", error)
            return 1 - dropped
        if not self._circuit.suspicious:
            self.note()
        return 1

    def note(self) -> None:
        """Note the failures that were held back as suspicious.

        Raises:
            OSError: They cannot be noted.
        """
        for failure in self._suspicious:
            self._directory.note_failure(failure)
        self._suspicious.clear()

    def _too_small_for(self, error: PizzaError) -> bool:
        """Whether a prompt found too little left of a cap that would have sufficed at first."""
        cap = self._budget.max_calls
        return isinstance(error, BudgetTooSmallError) and cap is not None and error.needed <= cap

    def _cap_reached(self, error: PizzaError) -> PizzaError:
        if isinstance(error, BudgetExceededError):
            return error
        spent = self._directory.tally.spent.calls
        return BudgetExceededError(
            f"the budget is used up: max_calls={self._budget.max_calls}, spent {spent}, and the "
            "next prompt needs more than is left. Run again with a larger budget to go on from "
            "here.",
            kind="calls",
            limit=float(self._budget.max_calls or 0),
            spent=spent,
        )


def bad_row(fault: Fault) -> dict[str, Any]:
    """A record that is no row, as it is noted among the failures."""
    return {
        "id": None,
        "row": None,
        "where": fault.where,
        "kind": "BadRow",
        "message": fault.message,
        "cause": None,
        "again": False,
        "at": time.time(),
    }


def _failure(row: Row, place: int, error: PizzaError) -> dict[str, Any]:
    cause = error.__cause__
    return {
        "id": row.id,
        "row": place,
        "where": row.where,
        "kind": type(error).__name__,
        "message": str(error),
        "cause": None if cause is None else f"{type(cause).__name__}: {cause}",
        "again": may_pass(error),
        "at": time.time(),
    }
