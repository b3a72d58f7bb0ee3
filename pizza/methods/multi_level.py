# SPDX-License-Identifier: Apache-2.0
"""Multi-level: large groups of units first, then the parts of those that matter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Method, Plan, Scores
from pizza.errors import ConfigError
from pizza.methods._designs.budget import affordable, check_samples, coalitions_to_spend
from pizza.methods._designs.enumeration import every
from pizza.methods._designs.halves import FEWEST, calls_of_halves, usual
from pizza.methods._fits.regression import Fit, extend, fit, least_squares, plain

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Blocks = NDArray[np.int64]
"""The block of each unit, numbered from 0 without gaps, ``(n_units,)``."""

_CALLS_PER_BLOCK = 4


class MultiLevel(Method):
    """Random halves of groups; then of the parts of the groups that matter, the others random.

    Levels are messages, paragraphs, sentences and units. The first is the finest of which the
    budget allows 4 calls per group. Each level but the last spends half of what is left on
    coalitions in which every block is present with probability 1/2, and fits a LASSO or ridge
    (whichever predicts better) to *all* coalitions so far; the strongest blocks are split into
    their parts, up to one block per call in all. Blocks that are not split stay whole and stay
    random: unlike with leave-one-out inside a whole prompt, evidence that is repeated in another
    block is still found.

    A unit of a block that was never split scores an equal share of its block. The scores estimate
    Banzhaf values, of blocks where there are blocks. Without group structure (one sentence of a
    thousand words) blocks are runs of neighbours.

    Args:
        samples: Coalitions to evaluate. ``None``: what the budget allows, 10 per unit (64 to 512)
            without one.
        keep: Blocks are split, strongest first, until they hold this part of the sum of absolute
            block weights, above 0, at most 1.

    Cost: ``samples`` calls in one round per level (4 at most, and halvings of long runs).
    """

    def __init__(self, samples: int | None = None, keep: float = 0.95) -> None:
        self.samples = check_samples(samples)
        if not 0 < keep <= 1:
            raise ConfigError(f"keep is a number above 0, at most 1, not {keep!r}.")
        self.keep = keep

    def calls(self, n_units: int) -> tuple[int, int]:
        """8 at least, every coalition at most."""
        return calls_of_halves(n_units, self.samples)

    def plan(self, game: Game) -> Plan:
        """One round per level."""
        n = game.n_units
        budget = coalitions_to_spend(
            game, self.samples, fewest=FEWEST, default=usual(n), who="multi-level", share=0.5
        )
        if budget == 2**n - 1:
            rows = every(n)
            values = yield rows
            return Scores(values=least_squares(rows, values), details=_details(rows, values, []))
        rng = np.random.default_rng(game.seed)
        most = max(2, budget // _CALLS_PER_BLOCK)
        blocks = _first_blocks(game.groups, most)
        rows, values = np.zeros((0, n), dtype=bool), np.zeros((0, game.n_columns))
        levels: list[dict[str, Any]] = []
        left, last, spent = budget, False, 0.0
        while True:
            last = last or int(blocks.max()) + 1 == n or left < 2 * FEWEST
            fresh = _draw(blocks, rows, left if last else left // 2, rng)
            wanted = len(fresh)
            fresh = fresh[: affordable(game.tariff, fresh, spent)]
            # Once the limit of a tariff is reached, what was asked for is what there is.
            last, left = last or len(fresh) < wanted, left - len(fresh)
            spent += 0.0 if game.tariff is None else float(game.tariff.of(fresh).sum())
            values = np.vstack([values, (yield fresh)]) if len(fresh) else values
            rows = np.vstack([rows, fresh])
            # The whole output decides; its tokens wait for the last level.
            found = fit(_of_blocks(rows, blocks), values[:, :1])
            levels.append(
                {
                    "blocks": int(blocks.max()) + 1,
                    "samples": len(fresh),
                    "cv_r2": plain(found.cv_r2),
                }
            )
            if last or not left:
                break
            finer = _split(
                blocks, _strong(found.weights[0], self.keep), game.groups, max(most, budget)
            )
            # With no room to split, what is left sharpens the blocks as they are.
            last = bool((finer == blocks).all())
            blocks = finer
        weights = _all_columns(found, _of_blocks(rows, blocks), values)
        scores = (weights / np.bincount(blocks))[:, blocks]
        return Scores(values=scores, details=_details(rows, values, levels))


def _all_columns(found: Fit, x: Floats, values: Floats) -> Floats:
    if values.shape[1] == 1:
        return found.weights
    # A whole output that is constant or unknown decides nothing: let another column do it.
    return (extend(found, x, values) if np.isfinite(found.cv_r2) else fit(x, values)).weights


def _details(rows: Bools, values: Floats, levels: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "index": "banzhaf",
        "samples": int((~rows.all(axis=1)).sum()),
        "undefined": int(np.isnan(values[:, 0]).sum()),
        "levels": levels,
    }


def _numbered(labels: NDArray[Any]) -> Blocks:
    return np.unique(labels, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _first_blocks(groups: NDArray[np.int64], most: int) -> Blocks:
    """The finest level of at most ``most`` blocks, units included; else runs of neighbours."""
    n = len(groups)
    if n <= most:
        return np.arange(n)
    for level in (2, 1, 0):
        blocks = _numbered(groups[:, level])
        if 1 < blocks.max() + 1 <= most:
            return blocks
    return np.arange(n) * most // n


def _of_blocks(rows: Bools, blocks: Blocks) -> Floats:
    """Which part of each block's units is present, ``(m, n_blocks)``.

    Coalitions of coarser blocks have all or nothing of a finer one; both kinds of rows serve.
    """
    order = np.argsort(blocks, kind="stable")
    starts = np.searchsorted(blocks[order], np.arange(blocks.max() + 1))
    sums = np.add.reduceat(rows[:, order].astype(np.float64), starts, axis=1)
    result: Floats = sums / np.bincount(blocks)
    return result


def _draw(blocks: Blocks, seen: Bools, wanted: int, rng: np.random.Generator) -> Bools:
    """Distinct coalitions of whole blocks that were not asked for before."""
    n_blocks = int(blocks.max()) + 1
    known = {row.tobytes() for row in seen} | {np.ones(len(blocks), dtype=bool).tobytes()}
    fresh: list[Bools] = []
    if n_blocks <= 12:
        candidates = rng.permutation(every(n_blocks))[:, blocks]
        fresh = [row for row in candidates if row.tobytes() not in known][:wanted]
    while n_blocks > 12 and len(fresh) < wanted:
        row = (rng.random(n_blocks) < 0.5)[blocks]
        if row.tobytes() not in known:
            known.add(row.tobytes())
            fresh.append(row)
    return np.array(fresh, dtype=bool).reshape(-1, len(blocks))


def _strong(weights: Floats, keep: float) -> list[int]:
    """Blocks that together hold the part ``keep`` of all absolute weight, strongest first."""
    strength = np.abs(np.nan_to_num(weights))
    order = np.argsort(-strength, kind="stable")
    total = strength.sum()
    if total <= 0:
        # Nothing found yet at this level: the finer one looks everywhere it can.
        return [int(b) for b in order]
    reached = int(np.searchsorted(np.cumsum(strength[order]), keep * total * (1 - 1e-12))) + 1
    return [int(b) for b in order[:reached]]


def _split(blocks: Blocks, chosen: list[int], groups: NDArray[np.int64], most: int) -> Blocks:
    """Blocks with the chosen ones cut into their parts, as far as there is room."""
    labels = blocks.copy()
    free = int(blocks.max()) + 1
    for block in chosen:
        members = np.flatnonzero(blocks == block)
        parts = _parts(groups[members], most - free + 1)
        more = int(parts.max())
        if more == 0:
            continue
        labels[members] = np.where(parts == 0, block, free + parts - 1)
        free += more
    return labels


def _parts(groups: NDArray[np.int64], room: int) -> Blocks:
    """The next finer level of a block with at most ``room`` parts, or runs of its units."""
    size = len(groups)
    if room < 2 or size < 2:
        return np.zeros(size, dtype=np.int64)
    for level in (0, 1, 2):
        parts = _numbered(groups[:, level])
        if parts.max() > 0 and parts.max() + 1 <= room:
            return parts
    return np.arange(size) * min(size, room) // size
