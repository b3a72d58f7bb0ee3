# SPDX-License-Identifier: Apache-2.0
"""The calls of the Files and Batches APIs, through the real client, tried again when they fail.

These calls carry no request of anybody's: the scheduler neither sees nor counts them, and a batch
that was paid for must not be lost because one look at it failed. So here they are repeated.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import httpx2
import openai
from openai.types import Batch

from pizza.errors import BackendError, BadRequestError, RateLimitedError, TransientError
from pizza_openai.batch_clock import Clock
from pizza_openai.errors import Translator

T = TypeVar("T")

TAG = "pizza_tag"
"""Key in a batch's metadata that holds our own name for it."""

EXCEPTIONS = (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError)
_TIMEOUT_S = 60.0  # of calls that carry no file
_WAIT_S = 1.0
_MAX_WAIT_S = 60.0
_WRITES = 8  # about four minutes
_READS = 60  # about an hour: the batch goes on meanwhile
_SLACK_S = 3600.0  # how far the server's clock may be behind ours

_log = logging.getLogger("pizza.openai")


class Calls:
    """The calls that batches need.

    Args:
        client: A client with a request stack that sends forms.
        errors: Makes the errors.
        clock: Waits.
        authorize: Called before every call; raises when there is no key.
    """

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        errors: Translator,
        clock: Clock,
        authorize: Callable[[], Awaitable[None]],
    ) -> None:
        self._client = client
        self._short = client.with_options(timeout=_TIMEOUT_S)
        self._errors = errors
        self._clock = clock
        self._authorize = authorize

    async def upload(self, tag: str, content: bytes) -> str:
        """Upload an input file; its id.

        Raises:
            BackendError: It is not there; after a 404 the message says what the server may lack.
        """
        name = _filename(tag)

        async def call() -> str:
            made = await self._client.files.create(file=(name, content), purpose="batch")
            return made.id

        try:
            return await self._tried(call, _WRITES)
        except BadRequestError as error:
            if not isinstance(error.__cause__, openai.NotFoundError):
                raise
            refusal, cause = str(error), error.__cause__
        raise BadRequestError(
            f"{refusal} (batches need a server with /v1/files and /v1/batches: without them, use "
            "openai: instead of openai-batch:)",
            backend=self._errors.name,
        ) from cause

    async def create(self, tag: str, file: str, endpoint: Any, since: float) -> str:
        """Begin a batch, exactly once; its id.

        When a call fails in a way that leaves open whether the batch began, it is looked for
        before the call is repeated.

        Args:
            tag: Our name for it.
            file: Id of its input file.
            endpoint: Path that its requests go to.
            since: When it was planned, seconds since the epoch.
        """
        first = True

        async def call() -> str:
            nonlocal first
            if not first and (found := await self.find_batch(tag, since)) is not None:
                return found
            first = False
            made = await self._short.batches.create(
                input_file_id=file,
                endpoint=endpoint,
                completion_window="24h",
                metadata={TAG: tag},
            )
            return made.id

        return await self._tried(call, _WRITES)

    async def find_batch(self, tag: str, since: float) -> str | None:
        """Id of the batch with this tag, or ``None``."""

        async def call() -> str | None:
            async for batch in self._short.batches.list(limit=100):
                if (batch.metadata or {}).get(TAG) == tag:
                    return batch.id
                if batch.created_at < since - _SLACK_S:
                    return None
            return None

        return await self._tried(call, _WRITES)

    async def find_file(self, tag: str, since: float) -> str | None:
        """Id of the input file with this tag, or ``None``."""

        async def call() -> str | None:
            async for file in self._short.files.list(purpose="batch", order="desc"):
                if file.filename == _filename(tag):
                    return file.id
                if file.created_at < since - _SLACK_S:
                    return None
            return None

        return await self._tried(call, _WRITES)

    async def retrieve(self, batch: str) -> Batch | None:
        """How a batch stands, or ``None`` when the server does not know it."""

        async def call() -> Batch | None:
            try:
                return await self._short.batches.retrieve(batch)
            except openai.NotFoundError:
                return None

        found = await self._tried(call, _READS)
        if found is None:
            _log.warning(
                "%s: the server knows no batch %s (was it made with the key of another project?); "
                "its requests are handed over anew.",
                self._errors.name,
                batch,
            )
        return found

    async def cancel(self, batch: str) -> Batch:
        """Stop a batch; one attempt.

        Raises:
            BackendError: It could not be stopped, perhaps because it has ended.
        """
        return await self._tried(lambda: self._short.batches.cancel(batch), 1)

    async def rows(self, file: str) -> AsyncGenerator[bytes, None]:
        """The lines of a result file, one by one, in bounded memory.

        A file that is gone has none.
        """
        given = 0
        attempt = 0
        while True:
            failure: Exception
            try:
                await self._authorize()
                skip = given
                async with contextlib.aclosing(self._lines(file)) as lines:
                    async for line in lines:
                        if skip:
                            skip -= 1
                            continue
                        given += 1
                        attempt = 0
                        yield line
            except EXCEPTIONS as error:
                failure = error
            else:
                return
            attempt += 1
            said = self._said(failure)
            if isinstance(failure, openai.NotFoundError):
                _log.warning("%s: file %s is gone: %s", self._errors.name, file, said)
                return
            await self._wait(said, attempt, _READS, failure)

    async def _lines(self, file: str) -> AsyncGenerator[bytes, None]:
        opened = self._client.files.with_streaming_response.content(file)
        async with opened as response:
            rest = bytearray()
            # By bytes: texts may hold characters that other readers take for ends of lines.
            async for chunk in response.iter_bytes(1 << 16):
                rest += chunk
                if b"\n" not in chunk:
                    continue
                *whole, tail = bytes(rest).split(b"\n")
                rest = bytearray(tail)
                for line in whole:
                    if line.strip():
                        yield line
            if rest.strip():
                yield bytes(rest)

    async def _tried(self, call: Callable[[], Awaitable[T]], attempts: int) -> T:
        attempt = 0
        while True:
            await self._authorize()
            failure: Exception
            try:
                return await call()
            except BackendError:
                raise  # from a call inside of this one, which was repeated already
            except EXCEPTIONS as error:
                failure = error
            attempt += 1
            # Outside of the handler: what is raised here has no context that could show a key.
            await self._wait(self._said(failure), attempt, attempts, failure)

    def _said(self, failure: Exception) -> BackendError:
        return self._errors.error(failure)

    async def _wait(
        self, said: BackendError, attempt: int, attempts: int, failure: Exception
    ) -> None:
        if not isinstance(said, TransientError) or attempt >= attempts:
            raise said from self._errors.clean(failure)
        wait = min(_MAX_WAIT_S, _WAIT_S * 2.0 ** (attempt - 1))
        if isinstance(said, RateLimitedError):
            wait = max(wait, said.retry_after_s or 0.0)
        _log.info("%s (attempt %d, the next in %g s)", said, attempt, wait)
        await self._clock.sleep(wait)


def _filename(tag: str) -> str:
    return f"pizza-{tag}.jsonl"
