# SPDX-License-Identifier: Apache-2.0
"""Stops a run that can only fail, instead of letting it burn through its input."""

from __future__ import annotations

from pizza.errors import (
    AuthError,
    BackendError,
    BudgetTooSmallError,
    CacheError,
    ConfigError,
    ContextTooLongError,
    PizzaError,
    PluginError,
    QuotaExhaustedError,
    RefusedError,
    RetriesExhaustedError,
    SessionClosedError,
    TransientError,
)

_OF_ONE_PROMPT = (ContextTooLongError, RefusedError, BudgetTooSmallError)
_OF_EVERY_PROMPT = (BackendError, ConfigError, PluginError, RetriesExhaustedError, CacheError)
_MAY_PASS = (
    AuthError,
    CacheError,
    PluginError,
    QuotaExhaustedError,
    RetriesExhaustedError,
    SessionClosedError,
    TransientError,
)


def may_pass(error: PizzaError) -> bool:
    """Whether the same prompt may succeed another time: the failure says nothing about it."""
    return isinstance(error, _MAY_PASS)


class Circuit:
    """Counts rows in a row that failed for a reason that is probably not theirs.

    Args:
        threshold: How many open it; 0 = it never opens.
    """

    def __init__(self, threshold: int = 5) -> None:
        self._threshold = threshold
        self._kind: type[PizzaError] | None = None
        self._count = 0

    @property
    def open(self) -> bool:
        """Whether nothing more should be sent."""
        return bool(self._threshold) and self._count >= self._threshold

    @property
    def suspicious(self) -> bool:
        """Whether the last row failed for a reason that may be everybody's."""
        return self._count > 0

    def succeeded(self) -> None:
        """A row has a result."""
        self._kind, self._count = None, 0

    def failed(self, error: PizzaError) -> None:
        """A row failed."""
        if isinstance(error, _OF_ONE_PROMPT) or not isinstance(error, _OF_EVERY_PROMPT):
            self._kind, self._count = None, 0
            return
        kind = type(error)
        self._count = self._count + 1 if kind is self._kind else 1
        self._kind = kind
