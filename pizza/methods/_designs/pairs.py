# SPDX-License-Identifier: Apache-2.0
"""Complement pairs for Shapley-type methods, drawn size by size.

Sizes are the unit of thought: every index of the Shapley family gives all coalitions of one size
the same weight, so a design says how many coalitions of each size it wants, and within a size all
are equally likely.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from pizza.methods._designs.enumeration import Coalitions, Floats, log_binomial

_BATCH = 256
"""Rows of random numbers in memory at a time."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Coalitions and their complements, drawn without replacement.

    Attributes:
        present: One member of each pair, the smaller one, ``(n_pairs, n_units)``.
        mass: ``(n_pairs,)``: the number of pairs of this size that one drawn pair stands for
            (1 / its probability), times the Shapley kernel of both members.
        share: ``(n_pairs,)``: the drawn part of all pairs of this size, 1 = all of them.
        expected: ``(n_pairs,)``: pairs of this size that the design draws on average.
    """

    present: Coalitions
    mass: Floats
    share: Floats
    expected: Floats

    def round(self) -> Coalitions:
        """What is asked for: the empty coalition, the members above, then their complements."""
        empty = np.zeros((1, self.present.shape[1]), dtype=bool)
        return np.concatenate([empty, self.present, ~self.present])

    def only(self, known: Coalitions) -> Pairs:
        """The pairs that are ``known``, ``(n_pairs,)``; they stand for the others of their size."""
        sizes = self.present.sum(axis=1)
        drawn, left = np.bincount(sizes), np.bincount(sizes[known], minlength=sizes.max() + 1)
        part = (left / np.maximum(drawn, 1))[sizes[known]]
        return Pairs(
            present=self.present[known],
            mass=self.mass[known] / part,
            share=self.share[known] * part,
            expected=self.expected[known] * part,
        )

    @property
    def complete(self) -> bool:
        """Whether every pair there is was drawn."""
        n_pairs, n_units = self.present.shape
        return bool(n_pairs == (1 << n_units - 1) - 1)


def kernel_masses(n_units: int) -> Floats:
    """Total Shapley kernel of all pairs with s and n-s members, for s = 1..n//2.

    ``C(n,s) k(s) = (n-1) / (s (n-s))`` (Lundberg & Lee 2017, theorem 2), for both sizes.
    """
    n = n_units
    sizes = np.arange(1, n // 2 + 1)
    return uniform_masses(n) * (n - 1) / (sizes * (n - sizes))


def uniform_masses(n_units: int) -> Floats:
    """Sizes 1..n-1 counted for the pairs with s and n-s members, s = 1..n//2: 2, the middle 1."""
    return np.where(2 * np.arange(1, n_units // 2 + 1) == n_units, 1.0, 2.0)


def draw_pairs(n_units: int, n_pairs: int, size_masses: Floats, rng: np.random.Generator) -> Pairs:
    """Draw complement pairs, sizes in proportion to ``size_masses``, none twice.

    A size whose part of the draws reaches the number of its pairs is enumerated and the rest is
    shared by the others (the "border trick"). The number of draws of each other size is its
    expectation, rounded at random, so that every pair's probability is known exactly.

    Args:
        n_units: Number of units.
        n_pairs: Pairs to draw, at most ``2^(n_units - 1) - 1``.
        size_masses: For s = 1..n//2 (the smaller member's size).
        rng: Where randomness comes from.
    """
    n = n_units
    sizes = range(1, n // 2 + 1)
    capacity = np.array([_capacity(n, s) for s in sizes], dtype=float)
    expected = _fill(size_masses, capacity, n_pairs)
    counts = _round(expected, capacity, n_pairs, rng)
    drawn = [_draw_size(n, s, int(counts[s - 1]), rng) for s in sizes if counts[s - 1]]
    return weighed(np.concatenate([np.zeros((0, n), dtype=bool), *drawn]), expected)


def weighed(present: Coalitions, expected: Floats) -> Pairs:
    """Pairs of a design that draws ``expected`` pairs of each size on average.

    Args:
        present: The smaller member of each pair, ``(n_pairs, n_units)``; within a size, all pairs
            were equally likely.
        expected: For s = 1..n//2.
    """
    n = present.shape[1]
    layer = present.sum(axis=1) - 1
    counts = np.bincount(layer, minlength=len(expected))
    capacity = np.array([_capacity(n, s) for s in range(1, n // 2 + 1)], dtype=float)
    with np.errstate(divide="ignore"):
        mass = kernel_masses(n) / expected
    return Pairs(
        present=present,
        mass=mass[layer],
        share=(counts / capacity)[layer],
        expected=expected[layer],
    )


def fits(counts: NDArray[np.int64], n_units: int, size_masses: Floats) -> Floats | None:
    """What `draw_pairs` expects of each size, if it can have drawn so many of each; else ``None``.

    Its systematic sampling never is a whole pair off, at no size and in no run of sizes.
    """
    capacity = np.array([_capacity(n_units, s) for s in range(1, n_units // 2 + 1)], dtype=float)
    expected = _fill(size_masses, capacity, int(counts.sum()))
    off = np.cumsum(counts - expected)
    return expected if np.abs(off).max(initial=0.0) < 1 + 1e-6 else None


def _capacity(n: int, size: int) -> float:
    """Pairs whose smaller member has so many units; infinite where no budget reaches them all."""
    if log_binomial(n, size) > 50:
        return float("inf")
    return comb(n, size) / (2 if 2 * size == n else 1)


def _fill(masses: Floats, capacity: Floats, total: int) -> Floats:
    """Split ``total`` in proportion to ``masses`` with nothing above its capacity."""
    expected = np.zeros(len(masses))
    full = np.zeros(len(masses), dtype=bool)
    left = float(total)
    while not full.all():
        expected[~full] = left * masses[~full] / masses[~full].sum()
        # The slack is for rounding: a size that gets all of its pairs but for 1e-9 gets them all.
        over = ~full & (expected >= capacity * (1 - 1e-9))
        if not over.any():
            break
        expected[over] = capacity[over]
        full |= over
        left = max(0.0, total - expected[full].sum())
    return expected


def _round(
    expected: Floats, capacity: Floats, total: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Whole numbers with these expectations and this sum (systematic sampling)."""
    counts = np.where(expected >= capacity, expected, 0.0).astype(np.int64)
    rest = np.flatnonzero(expected < capacity)
    if total > counts.sum():
        ends = np.cumsum(expected[rest])
        ends *= (total - counts.sum()) / ends[-1]
        ticks = np.floor(np.append(0.0, ends) + rng.random()).astype(np.int64)
        ticks[-1] = ticks[0] + total - counts.sum()
        counts[rest] = np.diff(ticks)
    return counts


def _draw_size(n: int, size: int, count: int, rng: np.random.Generator) -> Coalitions:
    """Distinct coalitions of one size, all sets of them equally likely, no two complements."""
    middle = 2 * size == n
    capacity = _capacity(n, size)
    if 2 * count > capacity:
        # Of the two members of a middle pair, the one with the first unit stands for it.
        head, pool = ((0,), range(1, n)) if middle else ((), range(n))
        members = [head + rest for rest in combinations(pool, size - len(head))]
        chosen = np.sort(rng.choice(len(members), count, replace=False))
        present = np.zeros((count, n), dtype=bool)
        np.put_along_axis(present, np.array(members)[chosen], values=True, axis=1)
        return present
    found: dict[bytes, Coalitions] = {}
    while len(found) < count:
        batch = min(_BATCH, 2 * (count - len(found)))
        ranks = np.argpartition(rng.random((batch, n)), size - 1, axis=1)[:, :size]
        present = np.zeros((batch, n), dtype=bool)
        np.put_along_axis(present, ranks, values=True, axis=1)
        if middle:
            present[~present[:, 0]] ^= True
        for row in present:
            found.setdefault(np.packbits(row).tobytes(), row)
    return np.array(list(found.values())[:count])
