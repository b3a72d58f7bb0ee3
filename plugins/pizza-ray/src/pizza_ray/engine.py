# SPDX-License-Identifier: Apache-2.0
"""`RayEngine`: the rows of a run, spread over a Ray cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pizza
from pizza.bulk import Engine, Work
from pizza.bulk.settings import Settings
from pizza.errors import ConfigError
from pizza.limits import DEFAULT_CONCURRENCY, Budget, Limits
from pizza_ray.carried import Opened, Order, Secret
from pizza_ray.cluster import Cluster, check_address, joined, ray_package
from pizza_ray.crew import Crew
from pizza_ray.hosted import Hosted
from pizza_ray.travels import check_travels

_MOST = 16
"""Workers, where nobody says how many."""

_TRAVELS = ("retry", "base_url", "backend_options", "discover")
_KNOWN = (*_TRAVELS, "limits", "budget", "api_key", "plugins")


class RayEngine(Engine):
    """Explains rows in workers on the nodes of a Ray cluster, under one limit and one budget.

    Rates, concurrency and caps of the run hold over all workers together. Workers write results
    themselves, so that all nodes must have the run directory under one path. Workers that die are
    replaced, and their rows explained again; what was answered is not paid for twice. The run is
    started on a node of the cluster.

    Args:
        address: Of a running cluster, ``"HOST:6379"``, or ``"auto"``: the one of this machine,
            which is left running. ``None`` = what ``RAY_ADDRESS`` says, else a cluster of this
            machine alone is started, and stopped at the end.
        workers: How many. By default one for each GPU where the model computes in the worker and
            the cluster has GPUs, else one for each CPU, 16 at most.
        cpus_per_worker: CPUs of each.
        gpus_per_worker: GPUs of each. By default 1 where the model computes in the worker and the
            cluster has GPUs, else 0.
        patience_s: How long a run that has no worker waits for one, seconds.
        environment: Variables of this process that workers get where they have none of that name.
            The key needs not be among them.
        init: Further options of `ray.init`.

    Raises:
        ConfigError: A number that is none of workers, CPUs, GPUs or seconds.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        *,
        cpus_per_worker: float = 1.0,
        gpus_per_worker: float | None = None,
        patience_s: float = 120.0,
        environment: tuple[str, ...] = ("OPENAI_BASE_URL", "PIZZA_DISABLE_PLUGINS"),
        init: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value, least in (
            ("workers", workers, 1),
            ("cpus_per_worker", cpus_per_worker, 0),
            ("gpus_per_worker", gpus_per_worker, 0),
            ("patience_s", patience_s, 0),
        ):
            usable = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (usable and value >= least):
                raise ConfigError(f"{name} is a number of at least {least}, not {value!r}.")
        self._address = address
        self._workers = workers
        self._cpus = cpus_per_worker
        self._gpus = gpus_per_worker
        self._patience_s = patience_s
        self._environment = tuple(environment)
        self._init = dict(init or {})

    def check(self, settings: Settings) -> None:
        """See `Engine.check`."""
        ray_package()
        check_address(self._address)
        session = settings.session
        if not isinstance(settings.model, str):
            raise ConfigError(
                f"model is a {type(settings.model).__name__} object, which cannot be given to "
                "workers on other machines: name it, 'backend:model', and install its plugin on "
                "all nodes."
            )
        if session.get("plugins"):
            raise ConfigError(
                "plugins= are objects of this process, which cannot be given to workers: install "
                "them on all nodes as distributions with an entry point of pizza.plugins."
            )
        if unknown := sorted(set(session) - set(_KNOWN)):
            raise ConfigError(
                f"workers do not take {', '.join(unknown)}: a run on Ray takes {', '.join(_KNOWN)}."
            )
        check_travels(
            "api_key",
            session.get("api_key"),
            "give the key itself, or set its environment variable on all nodes",
        )
        for name in _TRAVELS:
            check_travels(name, session.get(name), "give plain values")
        for name, value in settings.options.items():
            check_travels(
                f"the option {name}",
                value,
                "name it ('name:option=value'), and install what it is part of on all nodes",
            )

    async def carry_out(self, work: Work) -> None:
        """See `Engine.carry_out`."""
        settings = work.settings
        limits: Limits = settings.session.get("limits") or Limits()
        budget: Budget = settings.session.get("budget") or Budget()
        # Entry points may import anything, and slowly: not on the loop. It is remembered.
        await asyncio.to_thread(lambda: work.backend)
        async with AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(joined(self._address, self._init))
            needs, size = self._needs(work, cluster)
            hosted = Hosted(work, cluster)
            stack.push_async_callback(hosted.close)

            async def opened(found: Opened) -> None:
                work.opened(found.identity, found.plugins)
                await hosted.open(
                    limits=_shared(limits, found, size),
                    budget=budget,
                    price=found.price,
                    name=found.backend,
                )

            crew = Crew(
                work,
                cluster,
                order=self._order(work, limits),
                key=_key(work),
                hosted=hosted,
                opened=opened,
                size=size,
                rows=settings.rows_at_once(),
                needs=needs,
                patience_s=self._patience_s,
            )
            # Until the last worker is closed the coordinator must hear of the run.
            await stack.enter_async_context(work.pacing(hosted.count))
            stack.push_async_callback(crew.close)
            await crew.run()

    def _needs(self, work: Work, cluster: Cluster) -> tuple[dict[str, Any], int]:
        """Resources of a worker, and how many workers there are to be."""
        gpus = self._gpus
        if gpus is None:
            gpus = 1.0 if cluster.gpus and "torch" in work.backend.needs else 0.0
        needs: dict[str, Any] = {"num_cpus": self._cpus}
        most = min(_MOST, int(cluster.cpus / self._cpus)) if self._cpus else _MOST
        if gpus:
            needs["num_gpus"] = gpus
            most = int(cluster.gpus / gpus)
        return needs, self._workers or max(1, most)

    def _order(self, work: Work, limits: Limits) -> Order:
        settings = work.settings
        given = {name: settings.session[name] for name in _TRAVELS if name in settings.session}
        return Order(
            directory=str(Path(work.directory.path).resolve()),
            run=work.directory.manifest["id"],
            model=settings.model,
            options=settings.options,
            session={**given, "max_concurrency": limits.max_concurrency},
            keep=settings.keep,
            part_rows=settings.part_rows,
            version=pizza.__version__,
            environment={n: os.environ[n] for n in self._environment if n in os.environ},
        )


def _key(work: Work) -> Secret:
    """The key as it is known here; without one workers look into their own environment."""
    given = work.settings.session.get("api_key")
    return Secret(given or os.environ.get(work.backend.key_variable or "") or None)


def _shared(limits: Limits, found: Opened, size: int) -> Limits:
    """The limits over all workers; where requests are answered together, each fills a batch."""
    slots = limits.max_concurrency
    if slots is None:
        slots = DEFAULT_CONCURRENCY if found.batch_size == 1 else found.batch_size * size
    return Limits(
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        burst_s=limits.burst_s,
        max_concurrency=max(slots, 1),
    )
