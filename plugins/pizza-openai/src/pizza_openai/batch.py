# SPDX-License-Identifier: Apache-2.0
"""The backend ``openai-batch``: the same models through OpenAI's Batch API, at half the price."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from pizza.abc import Send
from pizza.capability import Capability
from pizza.completion import Reply, Request
from pizza.errors import BackendError
from pizza.limits import Price
from pizza.specs import BackendSettings
from pizza_openai import urls
from pizza_openai.backend import OpenAIBackend
from pizza_openai.batch_calls import Calls
from pizza_openai.batch_clock import Clock, SystemClock
from pizza_openai.batch_handover import HandOver
from pizza_openai.batch_journal import Journal
from pizza_openai.batch_lines import Ask, Lines
from pizza_openai.batch_options import MAX_REQUESTS, BatchOptions
from pizza_openai.batch_run import Run
from pizza_openai.batch_service import Service
from pizza_openai.client import make_client

_DISCOUNT = 0.5
_TRANSFER_S = 600.0  # one upload of 200 MB on a slow line


class OpenAIBatchBackend(OpenAIBackend):
    """A model behind the Batch API of OpenAI, or of a server that has it.

    Answers are the same as those of ``openai``, and are known to the response cache under the same
    keys. A round of coalitions is one batch (or several, where it is larger than a batch may be).

    Args:
        settings: As for ``openai``; options also as in `pizza_openai.batch_options.BatchOptions`.
        clock: Time, for tests.

    Raises:
        ConfigError: A setting is not usable.
    """

    batch_size = MAX_REQUESTS
    batch_window_s = 24 * 3600.0
    times_out = False
    batches_at_once = 16

    def __init__(self, settings: BackendSettings, *, clock: Clock | None = None) -> None:
        self._batch_options, rest = BatchOptions.of(settings.options)
        super().__init__(replace(settings, options=rest))
        self.batch_wait_s = self._batch_options.gather_s
        clock = clock or SystemClock()
        self._journal = Journal(self._batch_options.journal, clock)
        # Not the direct client of single requests, which knows no forms and no streams.
        self._transfers = make_client(
            self._keys,
            base_url=urls.resolve(settings.base_url),
            http="httpx",
            max_concurrency=8,
            timeout_s=max(settings.timeout_s, _TRANSFER_S),
            organization=self._options.organization,
            project=self._options.project,
            default_headers=self._options.default_headers,
        )
        self._calls = Calls(self._transfers, self._errors, clock, self._authorize)
        self._lines = Lines(
            identity=self.identity,
            endpoint=self._endpoint,
            errors=self._errors,
            learned=self._learned,
            path=f"/v1{self._endpoint.path}",
        )
        self._service = Service(
            name=self.name,
            calls=self._calls,
            journal=self._journal,
            lines=self._lines,
            options=self._batch_options,
            clock=clock,
        )
        self._handover = HandOver(self._service)
        self._probes: list[Request] = []

    @property
    def name(self) -> str:
        """``"openai-batch:MODEL"``."""
        return f"openai-batch:{self._model}"

    @property
    def price(self) -> Price | None:
        """Half of the list price; a price of the user's is taken to be that of batches."""
        price = super().price
        if price is None or self._options.price is not None:
            return price
        return Price(
            prompt=price.prompt * _DISCOUNT,
            completion=price.completion * _DISCOUNT,
            source=f"half of {price.source} (Batch API)",
        )

    async def probe(self, send: Send, wanted: frozenset[Capability]) -> frozenset[Capability]:
        """As for ``openai``: the one short request is sent by itself, and answered at once."""

        async def at_once(request: Request) -> object:
            self._probes.append(request)
            return await send(request)

        return await super().probe(at_once, wanted)  # type: ignore[arg-type]

    async def answer(self, request: Request) -> Reply:
        """A batch of one."""
        async with contextlib.aclosing(self.answer_batch([request])) as answers:
            async for _, result in answers:
                if isinstance(result, Reply):
                    return result
                raise result
        raise self._lines.unavailable("a batch of one request gave no answer")

    async def answer_batch(
        self, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[int, Reply | BackendError], None]:
        """Hand requests over, wait, and read the results; may take up to 24 hours.

        Requests that were not run (their batch expired, or the account's queue was full) are
        handed over again in here. What was run is run again by the scheduler alone.

        Yields:
            As `Backend.answer_batch`, when a batch has ended.

        Cost: one request each, at the price of batches; none for requests that are found in a
            batch of an earlier run.
        """
        asks = []
        for position, request in enumerate(requests):
            if any(request is probe for probe in self._probes):
                try:
                    yield position, await super().answer(request)
                except BackendError as error:
                    yield position, error
                continue
            asks.append(Ask(request=request, positions=[position]))
        run = Run(self._service, self._handover)
        async with contextlib.aclosing(run.results(asks)) as results:
            async for ask, result in results:
                for position in ask.positions:
                    yield position, result

    async def aclose(self) -> None:
        """Close all connections and the journal."""
        await self._journal.aclose()
        await self._transfers.close()
        await super().aclose()

    async def _authorize(self) -> None:
        if not self._keys.present and self._official:
            await self._keys.get()  # raises
