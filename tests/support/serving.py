# SPDX-License-Identifier: Apache-2.0
"""examples/serve, served for real on loopback; needs the dependency group `serve`."""

from __future__ import annotations

import importlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import uvicorn
from support.server import ServedModel

import pizza

PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running application."""

    url: str

    async def health(self, client: aiohttp.ClientSession) -> dict[str, Any]:
        async with client.get(f"{self.url}/health") as answer:
            assert answer.status == 200
            return await answer.json()

    async def idle(
        self, client: aiohttp.ClientSession, model: ServedModel | None = None
    ) -> dict[str, Any]:
        """Ask for its health until nothing is running; the last answer, whatever it says.

        Args:
            client: Asks.
            model: The model's server, which learns a moment later that a caller has gone.
        """
        until = time.monotonic() + PATIENCE_S
        while True:
            found = await self.health(client)
            busy = [found["active"], *(found["statistics"][k] for k in ("in_flight", "queued"))]
            if not any(busy) or time.monotonic() > until:
                break
        if model is not None:
            await deserted(client, model)
        return found

    def ask(self, client: aiohttp.ClientSession, prompt: str, **more: Any) -> Any:
        return client.post(f"{self.url}/attribute", json={"prompt": prompt, **more})


async def deserted(client: aiohttp.ClientSession, model: ServedModel) -> None:
    """Ask a model's server how it is until it has noticed that all callers have gone."""
    until = time.monotonic() + PATIENCE_S
    while model.stats["in_flight"] and time.monotonic() < until:
        async with client.get(model.base_url.removesuffix("/v1") + "/health") as answer:
            assert answer.status == 200


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The events of a stream, as they come."""
    assert answer.status == 200, await answer.text()
    assert answer.content_type == "text/event-stream"
    name = ""
    async for line in answer.content:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


@contextmanager
def running(app: Any) -> Iterator[Served]:
    """Run an ASGI application on a thread."""
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, ws="none")
    )
    # Listening before it runs: a client that is early waits in the backlog.
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
        thread.start()
        try:
            yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def served(
    model: str = "embedded", rules: dict[str, Any] | None = None, **options: Any
) -> Iterator[Served]:
    """Run the application of examples/serve.

    Args:
        model: As for `pizza.Session`.
        rules: Fields of the application's `Rules`.
        **options: Further options of the session.
    """
    make = importlib.import_module("serve.app").create_app
    made = importlib.import_module("serve.rules").Rules(**(rules or {}))
    with running(make(lambda: pizza.Session(model, **options), made)) as app:
        yield app
