# SPDX-License-Identifier: Apache-2.0
"""One request from asking to answer: single flight -> cache -> send -> store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pizza._engine.faults import again
from pizza._engine.flight import Flights
from pizza._engine.outcomes import Answer
from pizza._observe_requests import told_known
from pizza.errors import PizzaError, SessionClosedError

if TYPE_CHECKING:
    from pizza._engine.attempts import Sender
    from pizza._engine.keys import KeyMaker
    from pizza._engine.shelf import Shelf
    from pizza._engine.turns import Line
    from pizza.completion import Request


class Desk:
    """Takes requests in; everybody who asks a scheduler does it here.

    Args:
        keys: Makes the keys of the backend.
        sender: Sends what the cache does not hold.
        shelf: The cache, or ``None``.
        looking_up: Open while requests are looked up.
    """

    def __init__(
        self,
        keys: KeyMaker,
        sender: Sender,
        shelf: Shelf | None,
        looking_up: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self.key = keys.key
        self._sender = sender
        self._shelf = shelf
        self._looking_up = looking_up
        self._flights: Flights[Answer | PizzaError] = Flights()
        self.open = False
        self.cache_hits = self.shared = self.failures = 0

    def check_open(self) -> None:
        """Raise `SessionClosedError` unless requests are taken."""
        if not self.open:
            raise SessionClosedError("the scheduler is not open: use it inside of 'async with'.")

    async def submit(self, request: Request) -> Answer:
        """The answer to one request.

        Raises:
            PizzaError: There is none; the type says why.
        """
        self.check_open()
        key = self.key(request)
        while not self._flights.lead(key):
            outcome = await self._flights.follow(key)
            if outcome is None:
                break
            if isinstance(outcome, PizzaError):
                self.failures += 1
                raise again(outcome)
            self.shared += 1
            told_known((key,), shared=True)
            return Answer(
                completion=outcome.completion,
                cached=True,
                attempts=0,
                cost=0.0,
                packed=outcome.packed,
            )
        result = (await self.find((key,))).get(key)
        if result is None:
            stored: asyncio.Future[Answer | PizzaError] = asyncio.get_running_loop().create_future()

            def done(outcome: Answer | PizzaError) -> None:
                if not stored.done():
                    stored.set_result(outcome)

            await self.send(key, request, done)
            result = await stored
        if isinstance(result, PizzaError):
            raise result
        return result

    # --- the leader of a flight ---------------------------------------------------------------

    def lead(self, key: str) -> bool:
        """Whether nobody asks the same now: then the caller must `find`, `send` or `abandon`."""
        return self._flights.lead(key)

    def abandon(self, key: str) -> None:
        """The leader was cancelled before it sent anything."""
        self._flights.abandon(key)

    async def find(self, keys: Sequence[str]) -> dict[str, Answer | PizzaError]:
        """The answers to flights of the caller that the cache holds; these flights are over.

        Cancelled, it gives all the flights up.
        """
        if self._shelf is None:
            return {}
        try:
            with self._looking_up():
                found = await self._shelf.find(keys)
        except BaseException:
            for key in keys:
                self._flights.abandon(key)
            raise
        told_known([key for key, what in found.items() if not isinstance(what, PizzaError)])
        results: dict[str, Answer | PizzaError] = {}
        for key, what in found.items():
            if isinstance(what, PizzaError):
                self.failures += 1
                results[key] = what
            else:
                self.cache_hits += 1
                results[key] = Answer(
                    completion=what[0], cached=True, attempts=0, cost=0.0, packed=what[1]
                )
            self._flights.land(key, results[key])
        return results

    async def send(
        self,
        key: str,
        request: Request,
        done: Callable[[Answer | PizzaError], None],
        line: Line | None = None,
    ) -> None:
        """Send the request of a flight of the caller; returns when there is an answer or none.

        Cancelled, it gives the flight up, unless there is an answer: that is stored then, whoever
        has gone, and identical requests wait for it instead of paying again.

        Args:
            key: Of the request.
            request: The request.
            done: Called once, when the answer is stored, or with an error.
            line: Other requests of its caller, behind which it stands.
        """
        trail = self._sender.trail(key, request)
        trail.queued()
        try:
            if self._shelf is not None:
                await self._shelf.wait_for_room()
            reply, attempts, cost = await self._sender.send(request, trail, line)
        except PizzaError as error:
            trail.failed(error)
            self.failures += 1
            self._flights.land(key, error)
            done(error)
            return
        except BaseException:
            self._flights.abandon(key)
            raise
        completion = reply.completion

        def landed(packed: bytes | None) -> None:
            if packed is not None:
                trail.stored()
            answer = Answer(
                completion=completion, cached=False, attempts=attempts, cost=cost, packed=packed
            )
            self._flights.land(key, answer)
            done(answer)

        if self._shelf is None:
            landed(None)
        else:
            self._shelf.store(key, completion, landed)
