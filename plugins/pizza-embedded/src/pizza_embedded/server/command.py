# SPDX-License-Identifier: Apache-2.0
"""``python -m pizza_embedded serve``: options, start, stop."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pizza_embedded.faults import FaultPlan
from pizza_embedded.ratelimit import STYLES
from pizza_embedded.server.batch_options import BatchOptions
from pizza_embedded.server.options import DEFAULT_MODEL, Latency, ServerOptions

Value = TypeVar("Value")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``serve``."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=0, help="port; 0 = a free one (default)")
    add("--model-name", default=DEFAULT_MODEL, help="its name in requests (default: %(default)s)")
    add("--weights", type=Path, help="folder of other weights than the package's")
    add(
        "--latency",
        type=_parsed(Latency.parse),
        default=Latency(),
        metavar="SECONDS|lognormal:MEAN,SIGMA",
        help="how long every answer takes at least",
    )
    add("--rpm", type=_positive, help="limit of requests per minute")
    add("--tpm", type=_positive, help="limit of tokens per minute, prompt and longest output")
    add(
        "--rate-style",
        choices=STYLES,
        default="minute",
        help="minute: all of a minute may come at once; second: in portions of a second; "
        "second-strict: the same, and refused requests cost quota; fixed-window: a new quota "
        "every 60 s (default: %(default)s)",
    )
    add("--rate-burst", type=_positive, metavar="SECONDS", help="how much may come at once")
    add(
        "--rate-headers",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="say what the limits are and when to come back",
    )
    add("--refund-tokens", action="store_true", help="give back reserved tokens not used")
    add(
        "--faults",
        type=_parsed(FaultPlan.parse),
        default=FaultPlan(),
        metavar="NAME=SHARE,...",
        help="e.g. 500=0.01,drop=0.01,hang=0.01:10,malformed=0.01,truncate=0.01,seed=7",
    )
    add("--api-key", help="the only key that is let in (default: none is asked for)")
    add(
        "--batches",
        type=_parsed(BatchOptions.parse),
        default=BatchOptions(),
        metavar="NAME=VALUE,...",
        help="how batches behave, e.g. delay=5,expire=10,fail=0.1,malformed=1,hang=create",
    )
    add("--no-cache", action="store_true", help="compute repeated requests again")


def options_from(arguments: argparse.Namespace) -> ServerOptions:
    """The server's options from parsed arguments."""
    more: dict[str, Any] = {"cache_bytes": 0} if arguments.no_cache else {}
    return ServerOptions(
        host=arguments.host,
        port=arguments.port,
        model_name=arguments.model_name,
        weights=arguments.weights,
        latency=arguments.latency,
        rpm=arguments.rpm,
        tpm=arguments.tpm,
        rate_style=arguments.rate_style,
        rate_burst_s=arguments.rate_burst,
        rate_headers=arguments.rate_headers,
        refund_tokens=arguments.refund_tokens,
        faults=arguments.faults,
        api_key=arguments.api_key,
        batches=arguments.batches,
        **more,
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    try:
        # Imported here: everything above works, and can say so, without aiohttp.
        from pizza_embedded.server.app import Server
    except ModuleNotFoundError as error:
        print(  # noqa: T201 - the command's own message
            f"the server needs the package {error.name!r}: pip install 'pizza-embedded[serve]'",
            file=sys.stderr,
        )
        return 1
    try:
        server = Server(options_from(arguments))
    except OSError as error:
        print(f"the weights cannot be read: {error}", file=sys.stderr)  # noqa: T201
        return 1

    async def serve() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        try:
            url = await server.start()
        except OSError as error:
            print(  # noqa: T201
                f"cannot listen on {arguments.host}:{arguments.port}: {error.strerror or error}",
                file=sys.stderr,
            )
            return 1
        # Whoever started this reads the line to learn the port, so it must not wait in a buffer.
        print(f"pizza-embedded serves {arguments.model_name!r} on {url}", flush=True)  # noqa: T201
        await stop.wait()
        await server.aclose()
        return 0

    return asyncio.run(serve())


def _parsed(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """A type for argparse that shows the parser's own message."""

    def convert(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number greater than 0.")
    return value
