# SPDX-License-Identifier: Apache-2.0
"""A coordinator in an actor of a Ray cluster on loopback, and what came of talking to it, as JSON.

``python linked.py REQUESTS``; to be run in a network of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import ray
from pizza_ray.coordinator import Coordinator
from pizza_ray.leasing import LeasedGate
from pizza_ray.link import ActorLink
from pizza_ray.shared_store import SharedStore
from ray_nodes import nodes

from pizza.caches.memory import MemoryCache
from pizza.errors import AuthError, PizzaError
from pizza.limits import Budget, Limits, RateStatus, Spent

_ONE = Spent(calls=1, tokens=10)
_WORKERS = 3


@ray.remote(num_cpus=0)
class Host(Coordinator):
    """The coordinator as an actor."""

    def __init__(self, calls: int) -> None:
        super().__init__(
            Limits(requests_per_minute=12_000, burst_s=1.0, max_concurrency=100),
            budget=Budget(max_calls=calls),
            store=MemoryCache(),
        )

    async def cpu_s(self) -> float:
        """CPU time of the actor's process."""
        return time.process_time()


async def _send(gate: LeasedGate, store: SharedStore, names: list[str], at_once: int) -> None:
    slots = asyncio.Semaphore(at_once)

    async def one(name: str) -> None:
        async with slots:
            leave = await gate.enter(gate.ticket(), _ONE)
            gate.begin(leave)
            await asyncio.sleep(0.2)
            gate.finish(leave, _ONE, tokens_used=10, rate=RateStatus(limit_requests=12_000))
            await store.put(name, b"x" * 4096)

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(one(name))


async def _caught(awaitable: Any) -> str:
    try:
        await awaitable
    except PizzaError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


async def _main(requests: int) -> dict[str, Any]:
    handle = Host.remote(requests + 1)
    links = [ActorLink(handle) for _ in range(_WORKERS)]
    gates = [LeasedGate(link, worker=f"w{i}", incarnation=1) for i, link in enumerate(links)]
    stores = [SharedStore(link) for link in links]
    for gate in gates:
        await gate.open()
    cpu_s, own_s = await handle.cpu_s.remote(), time.process_time()
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for i, (gate, store) in enumerate(zip(gates, stores, strict=True)):
            names = [f"{i}/{n}" for n in range(requests // _WORKERS)]
            group.create_task(_send(gate, store, names, 40))
    took_s = time.monotonic() - began
    await asyncio.sleep(0.2)
    standing = await handle.standing.remote()
    found: dict[str, Any] = {
        "spent": standing.spent.calls,
        "in_flight": standing.in_flight,
        "queued": standing.queued,
        "took_s": round(took_s, 2),
        "calls_per_request": round(standing.calls / requests, 3),
        "cpu_ms_per_request_coordinator": 1e3 * (await handle.cpu_s.remote() - cpu_s) / requests,
        "cpu_ms_per_request_workers": 1e3 * (time.process_time() - own_s) / requests,
        "again": await _caught(gates[0].open()),
        "stored": len(await stores[0].get_many([f"1/{n}" for n in range(5)])),
    }
    last = await gates[1].enter(gates[1].ticket(), _ONE)
    found["cap"] = await _caught(_after(gates[1], last))
    gates[0].bar(AuthError("the key is wrong", backend="x"))
    await asyncio.sleep(0.2)
    found["barred"] = await _caught(gates[2].enter(gates[2].ticket(), _ONE))
    ray.kill(handle)
    found["gone"] = await _caught(gates[2].enter(gates[2].ticket(), _ONE))
    found["store_gone"] = await _caught(stores[0].get("1/1"))
    for gate in gates:
        await gate.aclose()
    return found


async def _after(gate: LeasedGate, leave: Any) -> None:
    """Use up the last call, and ask for one more."""
    gate.begin(leave)
    gate.finish(leave, _ONE)
    await gate.enter(gate.ticket(), _ONE)


def main() -> None:
    """Run, and print what was found."""
    with nodes(1, cpus=2) as cluster:
        ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
        try:
            found = asyncio.run(_main(int(sys.argv[1])))
        finally:
            ray.shutdown()
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
