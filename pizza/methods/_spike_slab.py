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

from pizza.methods._penalties import TINY, parts, scaled_design

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

_LIKELIEST = 50.0
"""Bound of log odds: beyond it a probability is 0 or 1 in floating point."""


def spike_slab(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Posterior means of the weights.

    Iterates ``r = b + X'z / m``, ``b = E[weight | r]`` and ``z = y - X b + z df / m``, with the
    mean square of z over m as the variance of r around the weights.

    Args:
        x: ``(m, n)`` design of zero mean and unit variance.
        y: ``(m, c)`` centred values without NaN.

    Returns:
        Weights ``(c, n)``, and how many degrees of freedom each column's fit has, ``(c,)``. A
        column whose iteration diverged has zeros.
    """
    m, n = x.shape
    floor = np.maximum(1e-12 * (y**2).mean(axis=0), TINY**2)
    spread = np.maximum((y**2).mean(axis=0), floor)
    share = np.full(y.shape[1], max(min(0.1, m / n / 4), 1e-3))
    slab = 0.7 * spread / (n * share)
    means, z = np.zeros((n, y.shape[1])), y
    df = np.zeros(y.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        for turn in range(_ITERATIONS):
            noise = np.maximum((z**2).mean(axis=0), floor) / m
            old = means
            chance, size, squares = _posterior(old + x.T @ z / m, noise, slab, share)
            means = chance * size
            df = ((chance * squares - means**2) / noise).sum(axis=0)
            if turn >= _BURN_IN:
                share = (chance.sum(axis=0) + _ONES) / (n + _ZEROS + _ONES)
                slab = (chance * squares).sum(axis=0) / np.maximum(chance.sum(axis=0), TINY)
                slab = np.maximum(slab, floor)
                if (np.abs(means - old).max(axis=0) <= _SETTLED * np.sqrt(spread)).all():
                    break
            # What is fitted to its own row has to be taken off the next residual; 1 would be all.
            step = y - x @ means + z * np.minimum(df / m, 0.95)
            z = _DAMPING * step + (1 - _DAMPING) * z
            means = _DAMPING * means + (1 - _DAMPING) * old
    failed = ~(np.isfinite(means).all(axis=0) & ((z**2).mean(axis=0) < 4 * spread + floor))
    means[:, failed], df[failed] = 0.0, 0.0
    return means.T, np.minimum(df, 0.95 * m)


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
    for turn in range(part.max() + 1):
        test = part == turn
        scaled = scaled_design(x[~test], None, intercept)
        target, mean = scaled.centre(y[~test, None])
        weights, offset = scaled.back(spike_slab(scaled.x, target)[0], mean)
        predictions[test] = x[test] @ weights[0] + offset[0]
    return predictions
