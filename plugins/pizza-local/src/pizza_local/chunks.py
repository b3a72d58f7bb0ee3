# SPDX-License-Identifier: Apache-2.0
"""How much goes through the network at once: from free memory, halved when it was too much."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")

_log = logging.getLogger("pizza.local")

# What is free now is not all ours: the allocator fragments, and others live here too.
_SHARE = 0.7
_UNKNOWN = 4 << 30


class Stopped(Exception):  # noqa: N818 - not an error: the caller went away
    """The caller was cancelled: nobody waits for the rest."""


def check(stop: threading.Event | None) -> None:
    """Leave when the caller was cancelled; called between chunks.

    Raises:
        Stopped: It was.
    """
    if stop is not None and stop.is_set():
        raise Stopped


def free_bytes(device: torch.device) -> int:
    """Memory of a device that can be had now, bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        limit = torch.mps.recommended_max_memory()
        return max(0, int(limit - torch.mps.current_allocated_memory()))
    return min(_available(), _left_in_group())


def _available() -> int:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return _UNKNOWN
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return _UNKNOWN


def _left_in_group() -> int:
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        return max(0, int(limit) - used)
    except (OSError, ValueError):
        return 1 << 62


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch means that a smaller chunk may work."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The CPU allocator and some kernels raise plain RuntimeErrors.
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "alloc" in text)


class Chunks:
    """Cuts work into chunks and remembers which size fitted. Belongs to one opened model.

    Args:
        device: Where the model is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._fitted: dict[Hashable, int] = {}

    def size(self, key: Hashable, bytes_each: int, most: int) -> int:
        """How many items of ``bytes_each`` fit in free memory, 1 to ``most``.

        Args:
            key: The kind of work, e.g. an engine and a sequence length. A size that once did not
                fit bounds later ones of the same kind.
            bytes_each: What one item needs, bytes.
            most: More than this is of no use.
        """
        fits = int(_SHARE * free_bytes(self._device)) // max(1, bytes_each)
        return max(1, min(fits, most, self._fitted.get(key, most)))

    def run(
        self,
        key: Hashable,
        n_items: int,
        bytes_each: int,
        most: int,
        work: Callable[[slice], Result],
        stop: threading.Event | None = None,
    ) -> Iterator[tuple[slice, Result]]:
        """Do ``work`` on slices that cover ``range(n_items)`` in order; yield each result.

        When memory runs out the slice is halved and done again; what was done stays done.

        Raises:
            Stopped: The caller was cancelled.
            torch.OutOfMemoryError: Not even one item fits.
        """
        start, size = 0, self.size(key, bytes_each, most)
        while start < n_items:
            check(stop)
            chunk = slice(start, min(start + size, n_items))
            try:
                result = work(chunk)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or chunk.stop - chunk.start == 1:
                    raise
                size = (chunk.stop - chunk.start) // 2
                self._fitted[key] = size
                _log.warning("out of memory: going on with %d at a time.", size)
                # Frames of the failed attempt hold its tensors until the traceback is gone.
                error.__traceback__ = None
                del error
                self.release()
                continue
            yield chunk, result
            start = chunk.stop

    def release(self) -> None:
        """Give back what the allocator holds on to."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        elif self._device.type == "mps":
            torch.mps.empty_cache()
