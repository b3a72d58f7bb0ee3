# SPDX-License-Identifier: Apache-2.0
"""One pass over an input before anything is paid for: what is wrong with it, and what it is."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pizza.bulk.rows import Fault, Row
from pizza.bulk.sources import Source
from pizza.completion import frozen_array
from pizza.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHOWN = 5
_MOST_FAULTS = 100_000
"""More records that are no rows mean that it is another file than somebody meant."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Census:
    """What an input holds.

    Attributes:
        rows: Usable rows.
        digest: Of all usable rows with all their columns; the same for every file format.
        hashes: 64 bits per id, sorted, ``(rows,)`` uint64. Read-only.
        faults: Records that are no rows.
    """

    rows: int
    digest: str
    hashes: NDArray[np.uint64]
    faults: tuple[Fault, ...] = ()


def take_census(source: Source, *, skip_faults: bool = False) -> Census:
    """Read all rows once.

    Args:
        source: The input.
        skip_faults: Whether records that are no rows are left out, instead of refused.

    Raises:
        ConfigError: There are no rows, some are unusable, or two have one id.

    Cost: no request; 8 bytes of memory per row.
    """
    digest = hashlib.sha256()
    hashes = array("Q")
    faults: list[Fault] = []
    for row in source.rows():
        if isinstance(row, Fault):
            faults.append(row)
            if not skip_faults and len(faults) > _SHOWN:
                break
            if len(faults) > _MOST_FAULTS:
                raise _too_faulty(source, faults, f"more than {_MOST_FAULTS:,}")
            continue
        content = row.content()
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
        hashes.append(row.hash)
    if faults and not skip_faults:
        raise _faulty(source, faults)
    if not hashes:
        if faults:
            raise _too_faulty(source, faults, "all")
        raise ConfigError(source.empty)
    ordered = np.sort(np.frombuffer(hashes, dtype=np.uint64))
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        _refuse_same_ids(source, {int(value) for value in twice})
    return Census(
        rows=len(ordered),
        digest=digest.hexdigest(),
        hashes=frozen_array(ordered, dtype=np.uint64),
        faults=tuple(faults),
    )


def contains(hashes: NDArray[np.uint64], value: int) -> bool:
    """Whether a sorted array holds a value."""
    place = int(np.searchsorted(hashes, np.uint64(value)))
    return place < len(hashes) and int(hashes[place]) == value


def _refuse_same_ids(source: Source, suspects: set[int]) -> None:
    """Tell ids that are the same from ids whose hashes are.

    Raises:
        ConfigError: Two rows have one id.
    """
    seen: dict[str, str] = {}
    for row in source.rows():
        if not isinstance(row, Row) or row.hash not in suspects:
            continue
        if row.id in seen:
            raise ConfigError(
                f"two rows have the id {row.id!r}: {seen[row.id]} and {row.where}. Ids tell "
                "results apart: name another column (--id-column), or make them unique."
            )
        seen[row.id] = row.where
    raise ConfigError(
        f"two ids of {source.name} have one 64-bit hash: {', '.join(map(repr, seen))}. Rename one."
    )


def _too_faulty(source: Source, faults: list[Fault], n: str) -> ConfigError:
    return ConfigError(
        f"{n} records of {source.name} cannot be used: it is probably not the file that was meant. "
        f"The first:\n  {faults[0]}"
    )


def _faulty(source: Source, faults: list[Fault]) -> ConfigError:
    shown = "\n".join(f"  {fault}" for fault in faults[:_SHOWN])
    more = "\n  ..." if len(faults) > _SHOWN else ""
    return ConfigError(
        f"{source.name} has records that cannot be used; nothing was sent.\n{shown}{more}\n"
        "Mend them, or leave them out (--skip-bad-rows)."
    )
