# SPDX-License-Identifier: Apache-2.0
"""A Ray cluster of several nodes on this machine, for tests and benchmarks.

Every node is a raylet of its own with processes of its own, bound to loopback. Whoever can runs it
in a network namespace of its own: ``isolated(command)`` is the command that does, and whatever is
left when the command ends is killed with it. ::

    with nodes(3) as cluster:
        ...  # RayEngine(cluster.address)
        cluster.kill(1)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_LOOPBACK = "127.0.0.1"
_STORE_BYTES = 80 << 20
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A node that was killed is noticed after a second, and not after half a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1500",
    "RAY_health_check_failure_threshold": "3",
    # On two cores every idle process counts.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_DEDUP_LOGS": "0",
}


class Nodes:
    """The nodes of a cluster.

    Attributes:
        address: For `ray.init` and `RayEngine`.

    Args:
        n: How many.
        cpus: What each says it has.
        gpus: Likewise; none need be there.
    """

    def __init__(self, n: int, *, cpus: int = 1, gpus: int = 0) -> None:
        # Ray notes the newest cluster of a machine in its folder: others' must not be mistaken.
        # Paths of sockets are short.
        self._folder = tempfile.mkdtemp(prefix="ray-")
        os.environ.update(_SETTINGS, RAY_TMPDIR=self._folder)
        from ray.cluster_utils import Cluster

        self._given: dict[str, Any] = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "object_store_memory": _STORE_BYTES,
            "node_ip_address": _LOOPBACK,
        }
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={**self._given, "include_dashboard": False},
        )
        self._nodes = [self._cluster.head_node]
        for _ in range(n - 1):
            self.add()
        self.address: str = self._cluster.address

    def add(self) -> None:
        """Start one more."""
        self._nodes.append(self._cluster.add_node(**self._given))

    def kill(self, number: int) -> None:
        """SIGKILL all processes of one; number 0 is the head."""
        self._cluster.remove_node(self._nodes.pop(number), allow_graceful=False)

    def stop(self) -> None:
        """End them all."""
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def nodes(n: int = 3, *, cpus: int = 1, gpus: int = 0) -> Iterator[Nodes]:
    """A cluster while the block runs; see `Nodes`."""
    made = Nodes(n, cpus=cpus, gpus=gpus)
    try:
        yield made
    finally:
        made.stop()


def isolated(command: Sequence[str]) -> list[str]:
    """The command that runs another one in a network of its own, where that is permitted.

    It also gets process numbers of its own: nothing that it started outlives it.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        return list(command)
    prefix = [unshare, "-rn", "-pf", "--mount-proc", "--kill-child"]
    tried = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    if tried.returncode:
        return list(command)
    return [*prefix, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
