# SPDX-License-Identifier: Apache-2.0
"""ReAGent: importance from random replacements, until the strongest units keep the output."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza import coalition
from pizza.abc import Game, Method, Plan, Scores
from pizza.errors import ConfigError
from pizza.methods._designs.budget import check_samples, coalitions_to_spend
from pizza.methods._designs.given import finite

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_FEWEST = 8
_WAVE = 8
"""Replacements between two looks at whether the strongest units keep the output."""

_EDGE = 1e-3
"""Effects end so far from -1 and 1, where the log-odds are infinite."""

_TRIES = 20
"""Draws in a row that were made before, after which none is taken to be left."""


class Reagent(Method):
    """``s_i += logit((D + 1) / 2)`` for units that were replaced, and minus that for those kept.

    Zhao & Shan 2024: a random 30 % of the units is replaced, D is how much less
    probable the output became, and all scores are updated in log-odds. It stops when the ``keep``
    strongest units alone keep the output, or when the calls are used up.

    Where this differs from the paper:

    * Units are replaced, whatever they are (there: tokens), by what the session's perturbation
      strategy puts there (there: what RoBERTa predicts, or tokens of the same part of speech).
    * D is the effect of the session's metric, clipped to -0.999..0.999. The paper's is a difference
      of probabilities: use ``prob-diff``. An effect beyond -1..1 (nats) is clipped, with a warning.
    * "Keep the output" means that the value with the strongest units alone is within ``tolerance``
      of that of all units (there: the output is among the model's 3 most probable tokens).
    * Scores are the mean update, in log-odds, starting from 0 (there: the sum, from random starts,
      averaged over several runs and passed through a softmax). So more calls sharpen a score
      instead of growing it, a unit that works against the output scores negative, and no unit
      takes from another. They sum to nothing in particular.

    An update tells the replaced units from the kept ones, not from each other: regression on the
    same number of calls ('context-cite') is more faithful, and this is here to compare with. A
    value that is not defined updates nothing in its column. Every column has scores of its own;
    the whole output decides when to stop.

    Args:
        samples: Coalitions to evaluate at most. ``None``: what the budget allows, 256 without one.
        replaced: Share of the units that is replaced, above 0 and below 1; one unit at least.
        keep: Units that have to keep the output, at least 1.
        tolerance: How far their value may be from that of all units, in the metric's unit.

    Cost: at most ``samples`` calls, in rounds of eight replacements and one look at the strongest.
    """

    def __init__(
        self,
        samples: int | None = None,
        replaced: float = 0.3,
        keep: int = 5,
        tolerance: float = 0.1,
    ) -> None:
        self.samples = check_samples(samples)
        if not 0 < replaced < 1:
            raise ConfigError(f"replaced is a share of the units, above 0, below 1: {replaced!r}.")
        if isinstance(keep, bool) or keep < 1:
            raise ConfigError(f"keep is a number of units, at least 1, not {keep!r}.")
        if not tolerance >= 0:
            raise ConfigError(f"tolerance is a number from 0 on, not {tolerance!r}.")
        self.replaced = replaced
        self.keep = keep
        self.tolerance = tolerance

    def calls(self, n_units: int) -> tuple[int, int]:
        """8 at least, where there are so many."""
        most = 2**n_units - 1
        return min(_FEWEST, most), most if self.samples is None else min(self.samples, most)

    def plan(self, game: Game) -> Plan:
        """Rounds of replacements, each followed by the strongest units alone."""
        n = game.n_units
        left = coalitions_to_spend(game, self.samples, fewest=_FEWEST, default=256, who="reagent")
        rng = np.random.default_rng(game.seed)
        seen = {coalition.key(np.ones(n, dtype=bool))}
        asked: set[bytes] = set(seen)
        sums, counts = np.zeros((game.n_columns, n)), np.zeros((game.n_columns, 1))
        clipped = steps = 0
        kept = False
        while left and not kept:
            rows = self._draw(n, min(_WAVE, left), seen, rng)
            if not len(rows):
                break
            asked |= {coalition.key(row) for row in rows}
            left -= len(rows)
            steps += len(rows)
            effects = -finite((yield rows))
            clipped += int((np.abs(effects[:, 0]) > 1).sum())
            _update(sums, counts, rows, effects)
            strongest = self._strongest(sums[0])
            name = coalition.key(strongest)
            if name not in asked and not left:
                break
            left -= name not in asked
            asked.add(name)
            value = (yield strongest[None])[0, 0]
            kept = bool(abs(value) <= self.tolerance)
        scores = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
        details: dict[str, Any] = {
            "index": "reagent",
            "samples": len(asked) - 1,
            "replacements": steps,
            "kept_the_output": kept,
            "clipped": clipped,
        }
        return Scores(values=scores, details=details, warnings=_warnings(clipped, steps))

    def _draw(self, n: int, wanted: int, seen: set[bytes], rng: np.random.Generator) -> Bools:
        """Distinct replacements that were not drawn before; fewer when no more are found."""
        size = max(1, round(self.replaced * n))
        rows: list[Bools] = []
        tries = 0
        while len(rows) < wanted and tries < _TRIES:
            row = np.ones(n, dtype=bool)
            row[rng.permutation(n)[:size]] = False
            tries += 1
            if (name := coalition.key(row)) not in seen:
                seen.add(name)
                rows.append(row)
                tries = 0
        return np.array(rows, dtype=bool).reshape(len(rows), n)

    def _strongest(self, sums: Floats) -> Bools:
        """The coalition of the strongest units alone."""
        row = np.zeros(len(sums), dtype=bool)
        row[np.argsort(-sums, kind="stable")[: self.keep]] = True
        return row


def _update(sums: Floats, counts: Floats, rows: Bools, effects: Floats) -> None:
    """Add the log-odds of each replacement, ``log((1 + D) / (1 - D))``, to each column."""
    known = ~np.isnan(effects)
    effect = np.clip(np.where(known, effects, 0.0), _EDGE - 1, 1 - _EDGE)
    odds = np.log1p(effect) - np.log1p(-effect)
    sums += odds.T @ np.where(rows, -1.0, 1.0)
    counts += known.sum(axis=0)[:, None]


def _warnings(clipped: int, steps: int) -> tuple[str, ...]:
    if not clipped:
        return ()
    text = (
        f"reagent needs effects between -1 and 1, and {clipped} of {steps} were clipped: use the "
        "metric 'prob-diff'."
    )
    return (text,)
