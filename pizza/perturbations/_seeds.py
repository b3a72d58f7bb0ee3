# SPDX-License-Identifier: Apache-2.0
"""Random streams that depend on a seed and on what they are for, and on nothing else."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, *purpose: int | str) -> np.random.Generator:
    """A generator of its own for one purpose, e.g. one unit: what else is drawn changes nothing."""
    # Seed sequences take no negative numbers; a person's seed may be one.
    words = [seed % 2**64]
    words += [p if isinstance(p, int) else zlib.crc32(p.encode()) for p in purpose]
    return np.random.default_rng(words)
