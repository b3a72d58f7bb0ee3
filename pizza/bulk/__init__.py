# SPDX-License-Identifier: Apache-2.0
"""Thousands of prompts, one budget, nothing lost: runs over an input, in a directory.

`docs/bulk.md` tells how to use this, `docs/run-directory.md` what is in the directory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pizza._lazy import lazy as _lazy

if TYPE_CHECKING:
    from pizza.bulk.api import run as run
    from pizza.bulk.api import running as running
    from pizza.bulk.engine import Engine as Engine
    from pizza.bulk.estimating import Plan as Plan
    from pizza.bulk.estimating import estimate as estimate
    from pizza.bulk.exporting import export as export
    from pizza.bulk.exporting import to_pandas as to_pandas
    from pizza.bulk.merging import merge as merge
    from pizza.bulk.parts import attribution_of as attribution_of
    from pizza.bulk.rows import Columns as Columns
    from pizza.bulk.rows import Row as Row
    from pizza.bulk.settings import Summary as Summary
    from pizza.bulk.sources import Source as Source
    from pizza.bulk.tables import source_of as source_of
    from pizza.bulk.work import Pending as Pending
    from pizza.bulk.work import Work as Work

_HOMES = {
    **dict.fromkeys(("run", "running"), "pizza.bulk.api"),
    "Engine": "pizza.bulk.engine",
    **dict.fromkeys(("Plan", "estimate"), "pizza.bulk.estimating"),
    **dict.fromkeys(("export", "to_pandas"), "pizza.bulk.exporting"),
    "merge": "pizza.bulk.merging",
    "attribution_of": "pizza.bulk.parts",
    **dict.fromkeys(("Columns", "Row"), "pizza.bulk.rows"),
    "Summary": "pizza.bulk.settings",
    "Source": "pizza.bulk.sources",
    "source_of": "pizza.bulk.tables",
    **dict.fromkeys(("Pending", "Work"), "pizza.bulk.work"),
}

__getattr__, __dir__ = _lazy(__name__, _HOMES)
__all__ = [  # noqa: PLE0604 - computed
    *sorted(_HOMES)
]
