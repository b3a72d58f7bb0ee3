# SPDX-License-Identifier: Apache-2.0
"""Linear fits under a prior of which most weights may be zero, by approximate message passing.

A weight is zero, or drawn from a normal distribution, with a probability and a variance that are
learnt from the values (EM-BG-AMP: Vila & Schniter 2011, on the algorithm of Donoho, Maleki &
Montanari 2009). So one estimator serves games in which few units matter as well as games
in which nearly all do, without a penalty to search for. For designs of independent columns, which
random coalitions are, its iterates see each weight through normal noise of a known size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pizza.methods._fits.penalties import TINY, parts, scaled_design

Floats = NDArray[np.float64]

_ITERATIONS = 50
"""Fits that have not settled by then have too few rows to do so; further ones do not help them."""

_DAMPING = 0.7
"""How much of a step is taken. Undamped, designs with correlated columns diverge."""

_SETTLED = 1e-8
_BURN_IN = 4
"""Iterations before the prior is learnt: until then weights are too wrong to learn from."""

_ZEROS, _ONES = 4.0, 1.0
"""The Beta prior of the share of nonzero weights, in units that were seen before."""

_TOGETHER = 2**18
"""Entries of a design up to which its folds are fitted together: above, steps are long by
themselves, and the copies take memory."""

_LIKELIEST = 50.0
"""Bound of log odds: beyond it a probability is 0 or 1 in floating point."""


def spike_slab(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Posterior means of the weights.

    Args:
        x: ``(m, n)`` design of zero mean and unit variance.
        y: ``(m, c)`` centred values without NaN.

    Returns:
        Weights ``(c, n)``, and how many degrees of freedom each column's fit has, ``(c,)``. A
        column whose iteration diverged has zeros.
    """
    means, df = _iterated(x[None], y[None], np.array([len(x)]))
    return means[0].T, df[0]


def _iterated(x: Floats, y: Floats, m: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Iterates ``r = b + X'z / m``, ``b = E[weight | r]`` and ``z = y - X b + z df / m``.

    The mean square of z over m is the variance of r around the weights. Several problems go
    together: theirs are small, and a step is many operations on few numbers.

    Args:
        x: ``(p, rows, n)``; rows of zeros are none.
        y: ``(p, rows, c)``, likewise.
        m: ``(p,)`` how many rows each problem has.

    Returns:
        ``(p, n, c)`` and ``(p, c)``.
    """
    n, rows = x.shape[2], m[:, None].astype(np.float64)
    across = np.ascontiguousarray(np.swapaxes(x, 1, 2))
    square = (y**2).sum(axis=1) / rows
    floor = np.maximum(1e-12 * square, TINY**2)
    spread = np.maximum(square, floor)
    share = np.maximum(np.minimum(0.1, rows / n / 4), 1e-3) * np.ones_like(spread)
    slab = 0.7 * spread / (n * share)
    means, z = np.zeros((len(x), n, y.shape[2])), y
    df = np.zeros_like(spread)
    with np.errstate(over="ignore", invalid="ignore"):
        for turn in range(_ITERATIONS):
            noise = np.maximum((z**2).sum(axis=1) / rows, floor) / rows
            old = means
            seen = old + across @ z / rows[:, None]
            chance, size, squares = _posterior(seen, noise[:, None], slab[:, None], share[:, None])
            means = chance * size
            df = ((chance * squares - means**2) / noise[:, None]).sum(axis=1)
            if turn >= _BURN_IN:
                ones = chance.sum(axis=1)
                share = (ones + _ONES) / (n + _ZEROS + _ONES)
                slab = (chance * squares).sum(axis=1) / np.maximum(ones, TINY)
                slab = np.maximum(slab, floor)
                if (np.abs(means - old).max(axis=1) <= _SETTLED * np.sqrt(spread)).all():
                    break
            # What is fitted to its own row has to be taken off the next residual; 1 would be all.
            step = y - x @ means + z * np.minimum(df / rows, 0.95)[:, None]
            z = _DAMPING * step + (1 - _DAMPING) * z
            means = _DAMPING * means + (1 - _DAMPING) * old
    small = (z**2).sum(axis=1) / rows < 4 * spread + floor
    failed = ~(np.isfinite(means).all(axis=1) & small)
    means = np.where(failed[:, None], 0.0, means)
    return means, np.where(failed, 0.0, np.minimum(df, 0.95 * rows))


def _posterior(
    seen: Floats, noise: Floats, slab: Floats, share: Floats
) -> tuple[Floats, Floats, Floats]:
    """Chance of not being zero, and mean and mean square if so, of weights seen through noise."""
    both = noise + slab
    odds = np.log(share / (1 - share)) + 0.5 * np.log(noise / both)
    odds = odds + 0.5 * seen**2 * (slab / (noise * both))
    chance = 1 / (1 + np.exp(-np.clip(odds, -_LIKELIEST, _LIKELIEST)))
    size = seen * (slab / both)
    return chance, size, size**2 + noise * slab / both


def left_out(x: Floats, y: Floats, intercept: bool) -> Floats:
    """Predictions ``(m,)`` of rows by fits to the other parts."""
    predictions = np.empty(len(y))
    part = parts(len(y))
    turns = list(range(part.max() + 1))
    together = len(turns) if x.size <= _TOGETHER else 1
    for begin in range(0, len(turns), together):
        folds = [part == turn for turn in turns[begin : begin + together]]
        scaled = [scaled_design(x[~test], None, intercept) for test in folds]
        centred = [s.centre(y[~test, None]) for s, test in zip(scaled, folds, strict=True)]
        m = np.array([len(target) for target, _ in centred])
        design = np.zeros((len(folds), m.max(), x.shape[1]))
        values = np.zeros((len(folds), m.max(), 1))
        for at, (one, (target, _)) in enumerate(zip(scaled, centred, strict=True)):
            design[at, : m[at]], values[at, : m[at]] = one.x, target
        means, _ = _iterated(design, values, m)
        for at, test in enumerate(folds):
            weights, offset = scaled[at].back(means[at].T, centred[at][1])
            predictions[test] = x[test] @ weights[0] + offset[0]
    return predictions
