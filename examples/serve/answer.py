# SPDX-License-Identifier: Apache-2.0
"""The answer to one request: a stream of events that ends with its client."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

import pizza
from serve.events import HEARTBEAT, Narrator, explained, failure, on_the_wire, status_of
from serve.rules import Doorman, FullError, Rules

_LAST_WORDS_S = 5.0
"""How long a client that does not read is waited for when its time is over."""


class Answer(Response):
    """Attributes while its client listens.

    Starlette's `StreamingResponse` notices on some servers only when it next sends something that
    the client has gone. A model may take a minute until then, and is paid for: so this one listens
    all the time. Leaving `attribute_streaming` cancels the requests of this attribution and no
    others.

    What can be found wrong without asking the model is a 4xx answer; later errors are events.

    Args:
        session: The application's session.
        rules: What a request may take.
        doorman: Counts who is inside.
        prompt: The text.
        options: Of `Session.attribute`.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        session: pizza.Session,
        rules: Rules,
        doorman: Doorman,
        prompt: str,
        options: dict[str, Any],
    ) -> None:
        # X-Accel-Buffering: nginx would collect the events and hand them on at the end.
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(headers=headers)
        # There is no length to tell.
        del self.headers["content-length"]
        self._session = session
        self._rules = rules
        self._doorman = doorman
        self._prompt = prompt
        self._options = options
        self._streaming = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, until done or until nobody is there."""
        try:
            async with asyncio.TaskGroup() as group:
                answering = group.create_task(self._answer(scope, receive, send))
                leaving = group.create_task(_gone(receive))
                beating = group.create_task(self._beat(send))
                answering.add_done_callback(lambda _: (leaving.cancel(), beating.cancel()))
                leaving.add_done_callback(lambda _: answering.cancel())
        except* OSError:
            # Servers of ASGI 2.4 say so when something is sent to a client that has gone.
            pass

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem: Exception | None = None
        try:
            with self._doorman.inside():
                await self._stream(send)
        except TimeoutError:
            problem = TimeoutError(
                f"no result after {self._rules.max_seconds:g} s. Answers so far are kept: ask "
                "again, or for larger units."
            )
        except (pizza.PizzaError, FullError) as error:
            problem = error
        if problem is not None and not self._streaming:
            await refusal(problem)(scope, receive, send)
            return
        # Whoever stopped reading is not waited for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                if problem is not None:
                    await send(_body(on_the_wire(failure(problem))))
                self._streaming = False
                await send(_body(b"", more=False))

    async def _stream(self, send: Send) -> None:
        narrator = Narrator()
        loop = asyncio.get_running_loop()
        quiet_until = 0.0
        async with (
            asyncio.timeout(self._rules.max_seconds),
            self._session.attribute_streaming(
                self._prompt, every_s=self._rules.step_s, **self._options
            ) as steps,
        ):
            async for step in steps:
                if isinstance(step, pizza.Partial) and loop.time() < quiet_until:
                    continue
                if not self._streaming:
                    # The first step comes when all that costs nothing was checked.
                    await send(self._start())
                    self._streaming = True
                began = loop.time()
                told = [on_the_wire(event) for event in narrator.tell(step)]
                # First views of long prompts take milliseconds: those of all clients together
                # take a tenth of the loop at most.
                quiet_until = loop.time() + 10 * self._doorman.active * (loop.time() - began)
                for event in told:
                    await send(_body(event))

    def _start(self) -> Message:
        return {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }

    async def _beat(self, send: Send) -> None:
        """Proxies end a stream that is silent while the model thinks."""
        while True:
            await asyncio.sleep(self._rules.heartbeat_s)
            if self._streaming:
                await send(_body(HEARTBEAT))


async def _gone(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _body(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def refusal(error: Exception) -> JSONResponse:
    """An answer that is not a stream."""
    headers = {"retry-after": "5"} if isinstance(error, FullError) else None
    return JSONResponse({"error": explained(error)}, status_of(error), headers=headers)
