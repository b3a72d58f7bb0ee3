# SPDX-License-Identifier: Apache-2.0
"""The embedded model behind a real HTTP server on loopback, for tests that talk to an API.

`served_model` runs the server on a thread of the test's process: quick to start, its counters at
hand. `served_process` runs it as a program of its own, for tests that measure or kill things. Both
leave nothing behind.
"""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pizza_embedded.faults import FaultPlan
from pizza_embedded.runtime import Runtime
from pizza_embedded.server.app import Server
from pizza_embedded.server.options import Latency, ServerOptions

START_S = 30.0


@functools.cache
def runtime() -> Runtime:
    """The model, loaded once for all tests."""
    return Runtime.load()


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A running server.

    Attributes:
        base_url: Ends in ``/v1``.
        model: The plain model's name. ``model + "-reasoning"`` refuses log-probabilities,
            ``model + "-no-echo"`` ignores ``echo`` and ``prompt_logprobs``.
        read_stats: Reads the counters.
        stop: Ends the server; may be called more than once.
    """

    base_url: str
    model: str
    read_stats: Callable[[], dict[str, Any]]
    stop: Callable[[], None]

    @property
    def stats(self) -> dict[str, Any]:
        """The server's counters now; see `pizza_embedded.server.stats.Stats.to_dict`."""
        return self.read_stats()


@contextmanager
def served_model(
    *, clock: Callable[[], float] | None = None, **options: Any
) -> Iterator[ServedModel]:
    """Serve the model on a thread of this process.

    Args:
        clock: The time for the rate limits, seconds; a manual one makes them exact.
        **options: Fields of `ServerOptions`. ``latency`` and ``faults`` may be written as on the
            command line: ``"lognormal:0.3,0.5"``, ``"500=0.01,drop=0.01,seed=7"``.
    """
    if isinstance(latency := options.get("latency"), str | int | float):
        options["latency"] = Latency.parse(str(latency))
    if isinstance(faults := options.get("faults"), str):
        options["faults"] = FaultPlan.parse(faults)
    more = {} if clock is None else {"clock": clock}
    server = Server(ServerOptions(**options), runtime(), **more)
    started: Future[Callable[[], None]] = Future()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        try:
            await server.start()
        except BaseException as error:
            # Raised by whoever waits for the start, once.
            started.set_exception(error)
            return
        started.set_result(lambda: loop.call_soon_threadsafe(stopping.set))
        await stopping.wait()
        await server.aclose()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="served-model")
    thread.start()
    stop = started.result(START_S)

    def end() -> None:
        if thread.is_alive():
            stop()
            thread.join()

    try:
        yield ServedModel(
            server.base_url, server.options.model_name, lambda: server.stats.to_dict(), end
        )
    finally:
        end()


@contextmanager
def served_process(*flags: str) -> Iterator[ServedModel]:
    """Serve the model from ``python -m pizza_embedded serve`` with these flags."""
    command = [sys.executable, "-m", "pizza_embedded", "serve", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            assert line, f"the server ended with exit code {process.wait()}: {command}"
            base_url = line.rpartition(" ")[2]
            model = line.split("'")[1]

            def read() -> dict[str, Any]:
                url = base_url.removesuffix("/v1") + "/pizza/stats"
                with urllib.request.urlopen(url, timeout=START_S) as answer:
                    counters: dict[str, Any] = json.load(answer)
                return counters

            def end() -> None:
                process.terminate()
                process.wait()

            yield ServedModel(base_url, model, read, end)
        finally:
            process.terminate()
            try:
                process.wait(START_S)
            except subprocess.TimeoutExpired:
                process.kill()
