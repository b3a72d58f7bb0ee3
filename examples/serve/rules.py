# SPDX-License-Identifier: Apache-2.0
"""What one client may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Limits of the application; those of the model are `pizza.Limits` and `pizza.Budget`.

    Attributes:
        max_characters: Longest prompt, code points.
        max_calls: Most calls that one request may take, its reference included.
        max_active: Attributions at the same time; more are told to come back (429).
        max_seconds: Longest life of one request.
        step_s: Shortest time between two events of one request. What comes in between is in the
            next one.
        heartbeat_s: Time after which a silent stream sends a comment, so that no proxy ends it.
    """

    max_characters: int = 4000
    max_calls: int = 400
    max_active: int = 100
    max_seconds: float = 300.0
    step_s: float = 0.05
    heartbeat_s: float = 15.0


class FullError(Exception):
    """As many attributions are running as may."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"{most} attributions are running, as many as may. Try again in some seconds."
        )


class AskedTooMuchError(Exception):
    """A request is larger than the rules allow."""


class Doorman:
    """Counts the attributions that are running; belongs to one event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.active = 0

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Count one for the length of a block.

        Raises:
            FullError: There is no room.
        """
        if self.active >= self.most:
            raise FullError(self.most)
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1


def check(rules: Rules, prompt: str, budget: int | None) -> None:
    """Hold a request against the rules.

    Raises:
        AskedTooMuchError: It asks for more.
    """
    if len(prompt) > rules.max_characters:
        raise AskedTooMuchError(
            f"the prompt has {len(prompt):,} characters; this server takes {rules.max_characters:,}"
            " at most. Shorten it."
        )
    if budget is not None and budget > rules.max_calls:
        raise AskedTooMuchError(
            f"the budget is {budget:,} calls; this server allows {rules.max_calls:,} per request."
        )
