# SPDX-License-Identifier: Apache-2.0
"""Joining a Ray cluster, or starting one that only this machine can reach."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from pizza.errors import ConfigError

_LOOPBACK = "127.0.0.1"
_STORE_BYTES = 128 << 20
"""Shared memory of a cluster that is started here; by default Ray takes a third of all memory."""
_QUIET = {"logging_level": "error", "log_to_driver": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What a cluster offers.

    Attributes:
        ray: The package.
        node: The node that this process is on.
        cpus, gpus: How many it has in all, as far as Ray was told.
    """

    ray: Any
    node: str
    cpus: float
    gpus: float


def ray_package() -> Any:
    """Ray.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "the engine 'ray' needs Ray: pip install 'pizza-attribution[ray]'."
        ) from error
    return ray


def check_address(address: str | None) -> None:
    """Refuse addresses of Ray's client, whose programs are on no node.

    Raises:
        ConfigError: It is one.
    """
    if (address or os.environ.get("RAY_ADDRESS") or "").startswith("ray://"):
        raise ConfigError(
            "a run is made from a node of the cluster, because its directory is there: a ray:// "
            "address does not do. Run it on the head node, for example with: ray job submit -- "
            "pizza run ... --engine ray:address=auto."
        )


@asynccontextmanager
async def joined(address: str | None, init: Mapping[str, Any]) -> AsyncIterator[Cluster]:
    """A cluster that this process takes part in while the block runs.

    A process that has joined one already stays in it. One that is running is left running; one
    that is started here is bound to loopback, and stopped.

    Args:
        address: Of a running cluster, ``"auto"`` = the one of this machine. ``None`` = what
            ``RAY_ADDRESS`` says, else one is started.
        init: Further options of `ray.init`.

    Raises:
        ConfigError: There is none, or Ray is not installed.
    """
    ray = ray_package()
    check_address(address)
    ours = not ray.is_initialized()
    if ours:
        address = address or os.environ.get("RAY_ADDRESS")
        with _signal_kept():
            if address in (None, "", "local"):
                _start(ray, init)
            else:
                await asyncio.to_thread(_init, ray, {**_QUIET, "address": address, **init})
    try:
        found = await asyncio.to_thread(ray.cluster_resources)
        yield Cluster(
            ray=ray,
            node=ray.get_runtime_context().get_node_id(),
            cpus=float(found.get("CPU", 0.0)),
            gpus=float(found.get("GPU", 0.0)),
        )
    finally:
        if ours:
            await asyncio.to_thread(ray.shutdown)


@contextmanager
def _signal_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself, below Python as well; whoever handled it goes on doing so."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _start(ray: Any, init: Mapping[str, Any]) -> None:
    """Start a cluster. It keeps the event loop waiting: Ray insists on the main thread."""
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError(
            "Ray starts a cluster on the main thread only, and this event loop is on another one: "
            "start one with ray start --head and name it (address='auto')."
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _init(
        ray,
        {
            **_QUIET,
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
            # Ray's own choice is the address that others can reach.
            "_node_ip_address": _LOOPBACK,
            **init,
        },
    )


def _init(ray: Any, options: Mapping[str, Any]) -> None:
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError, TypeError) as error:
        address = options["address"]
        where = "on this machine" if address in ("auto", "local") else f"at {address!r}"
        raise ConfigError(
            f"there is no Ray cluster {where} that can be used: {error}. Start one with ray start "
            "--head, name its address (--engine ray:address=HOST:6379), or leave the address out "
            "to have one started here."
        ) from error
