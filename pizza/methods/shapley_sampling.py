# SPDX-License-Identifier: Apache-2.0
"""Shapley sampling: units join in random orders and in the reverse of each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pizza import coalition
from pizza.abc import Game, Method, Plan, Scores
from pizza.methods._designs.budget import check_samples, coalitions_to_spend
from pizza.methods._designs.enumeration import Coalitions, Floats
from pizza.methods._designs.given import finite, known_mean
from pizza.methods._fits import model_noise

_DEFAULT_BLOCKS = 10

_REPEATS = 16
"""Few units have few coalitions: orders go on for so many times their number, at no more calls."""


class ShapleySampling(Method):
    """``phi_i``: the mean of what unit i adds when units join in random orders.

    Castro, Gomez & Tejada 2009, with antithetic pairs: every order is followed by its reverse
    (Mitchell et al. 2022, section 4.1), which cancels the interactions of two units. Unbiased, and
    the scores of all units sum to ``v(all) - v(none)``. Standard errors: an order and its reverse
    are one block, blocks are independent. Noise of the model, where it was measured, is added for
    coalitions that blocks share.

    Gains that are not defined are left out of the mean.

    Args:
        samples: Coalitions to evaluate, the empty one included: one order takes n, each order with
            its reverse 2 (n-1) more than the empty one. The number of orders is what they allow;
            orders that share coalitions cost less. ``None``: what the budget allows, 10 orders
            and their reverses without one.

    Cost: ``1 + 2 (n_units - 1)`` calls for an order and its reverse, all orders in one round.
    """

    def __init__(self, samples: int | None = None) -> None:
        self.samples = check_samples(samples)

    def calls(self, n_units: int) -> tuple[int, int]:
        """One order at least; as many as allowed at most, less what they share."""
        most = 2**n_units - 1
        return n_units, most if self.samples is None else max(n_units, min(self.samples, most))

    def plan(self, game: Game) -> Plan:
        """One round of the empty coalition and what each order passes through."""
        n = game.n_units
        spend = coalitions_to_spend(
            game,
            self.samples,
            fewest=n,
            default=1 + _DEFAULT_BLOCKS * 2 * (n - 1),
            who="shapley-sampling",
            repeats=_REPEATS,
        )
        rng = np.random.default_rng(game.seed)
        blocks = (spend - 1) // (2 * max(1, n - 1))
        orders = _orders(n, blocks, rng)
        values = finite((yield _prefixes(orders)))
        gains = _gains(orders, values)
        scores, errors = _means(gains, blocks)
        return Scores(
            values=scores,
            standard_errors=model_noise.added(errors, _shared_noise(game, orders, blocks)),
            details={
                "index": "shapley",
                "samples": spend,
                "orders": len(orders),
                "undefined_gains": int(np.isnan(gains[:, :, 0]).sum()),
            },
        )


def _orders(n: int, blocks: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Random orders, then their reverses in the same sequence; a single one without blocks."""
    forward = rng.permuted(np.tile(np.arange(n), (max(1, blocks), 1)), axis=1)
    return np.concatenate([forward, forward[:, ::-1]]) if blocks else forward


def _prefixes(orders: NDArray[np.int64]) -> Coalitions:
    """The empty coalition, then for each order its first 1, 2, ..., n-1 units."""
    count, n = orders.shape
    present = np.zeros((1 + count * (n - 1), n), dtype=bool)
    for number, order in enumerate(orders):
        start = 1 + number * (n - 1)
        for joined in range(1, n):
            present[start + joined - 1, order[:joined]] = True
    return present


def _gains(orders: NDArray[np.int64], values: Floats) -> Floats:
    """What each unit adds in each order, ``(n_orders, n_units, n_columns)``."""
    count, n = orders.shape
    columns = values.shape[1]
    path = np.zeros((count, n + 1, columns))
    path[:, 0] = values[0]
    path[:, 1:n] = values[1:].reshape(count, n - 1, columns)
    steps = np.diff(path, axis=1)
    gains = np.empty_like(steps)
    np.put_along_axis(gains, orders[:, :, None], steps, axis=1)
    return gains


def _means(gains: Floats, blocks: int) -> tuple[Floats, Floats | None]:
    """Scores and standard errors, ``(n_columns, n_units)``."""
    scores = known_mean(gains)
    if blocks < 2:
        exact = gains.shape[1] == 1
        return scores.T, np.where(np.isnan(scores), np.nan, 0.0).T if exact else None
    each = known_mean(np.stack(np.split(gains, 2)))
    known = ~np.isnan(each)
    counts = known.sum(axis=0)
    squares = np.where(known, (each - scores) ** 2, 0.0).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.where(counts > 1, np.sqrt(squares / (counts - 1) / counts), np.nan)
    return scores.T, errors.T


def _shared_noise(game: Game, orders: NDArray[np.int64], blocks: int) -> Floats | None:
    """What the spread of blocks misses of the variance that noise adds, ``(n_columns, n_units)``.

    Blocks that pass through one coalition have one value of it and so one noise, which does not
    average out. Noise is in the score with the squared mean of what the blocks weigh a coalition
    with; in the spread it is with the spread of these.
    """
    if game.noise is None:
        return None
    mean = _weights_of_values(orders)
    if blocks < 2:
        return model_noise.variance(game, mean[0], mean[1])
    # In a block a unit has four coalitions with weight 1/2, of which one may be the full one.
    ends = np.bincount(orders[:blocks, [0, -1]].ravel(), minlength=game.n_units)
    each = np.array([blocks - ends / 4, ends / 4])
    total = np.array([mean[0], mean[1] ** 2])
    spread = (each - blocks * total) / (blocks * (blocks - 1))
    missing = np.maximum(0.0, total - spread)
    return model_noise.variance(game, missing[0], np.sqrt(missing[1]))


def _weights_of_values(orders: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """What scores weigh values with: the sum of squares, and the weight of the full coalition."""
    count, n = orders.shape
    names: dict[bytes, int] = {}
    number = [names.setdefault(coalition.key(row), len(names)) for row in _prefixes(orders)]
    # Along each order: the empty coalition, what it passes through, the full one (number -1).
    path = np.full((count, n + 1), -1)
    path[:, 0] = number[0]
    path[:, 1:n] = np.array(number[1:]).reshape(count, n - 1)
    cells = np.concatenate([orders * (len(names) + 1) + path[:, k : k + n] + 1 for k in (1, 0)])
    found, place = np.unique(cells, return_inverse=True)
    signs = np.repeat([1.0, -1.0], count * n) / count
    weights = np.bincount(place.ravel(), signs).astype(np.float64)
    unit, full = found // (len(names) + 1), found % (len(names) + 1) == 0
    squares: Floats = np.bincount(unit, np.where(full, 0.0, weights**2), n).astype(np.float64)
    return squares, np.bincount(unit, np.where(full, weights, 0.0), n).astype(np.float64)
