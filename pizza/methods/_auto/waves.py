# SPDX-License-Identifier: Apache-2.0
"""Random halves, alone or with their complements, collected in waves and fitted after each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Scores
from pizza.methods._auto.halves_fit import Z90, Halves, noise_of
from pizza.methods._designs.budget import affordable, bill
from pizza.methods._designs.halves import Draws
from pizza.methods._fits.blend import Blend
from pizza.methods._fits.intervals import relevant
from pizza.methods._fits.regression import plain

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_STABLE = 0.01
"""A smaller change of R2 between waves is none."""

_PERFECT = 0.98
"""Above this part of the R2 that noise allows there is nothing left to gain, also where there are
no intervals."""

_FOUND = 0.5
"""R2 on rows left out from which complements say more than further random halves."""

_CALLS_PER_FOUND = 7

_ENOUGH = 40
"""Rows from which their R2 can be trusted with the other half of the budget."""

_TOP = 5


class Waves:
    """Coalitions so far, their values, and what they say.

    Args:
        game: Units, columns, seed, tariff and noise.
        paired: Whether every coalition comes with its complement.
    """

    def __init__(self, game: Game, *, paired: bool) -> None:
        n, c = game.n_units, game.n_columns
        self._game = game
        self._draws = Draws(n, np.random.default_rng(game.seed))
        self._seen = Halves(
            rows=np.zeros((0, n), dtype=bool),
            values=np.zeros((0, c)),
            opposite=np.zeros((0, c)) if paired else None,
            noise=noise_of(game),
        )
        self._cost = 0.0
        self._waves: list[dict[str, Any]] = []
        self._fit: Blend | None = None
        self._before: Blend | None = None

    @property
    def spent(self) -> int:
        """Coalitions evaluated."""
        return self._seen.spent

    def unspent(self, budget: int) -> dict[str, Any]:
        """What is left of the budget: in calls, and in its currency where it has one."""
        left: dict[str, Any] = {"unspent": max(0, budget - self.spent)}
        return left | bill(self._game.tariff, self._cost)

    def draw(self, until: int) -> Bools:
        """The coalitions that are missing to ``until`` of them; complements come second.

        With a tariff no more than what is left of its limit pays for.
        """
        missing = until - self.spent
        if not self._seen.paired:
            rows = self._draws.halves(missing)
            rows = rows[: affordable(self._game.tariff, rows, self._cost)]
        else:
            first = self._draws.pairs(missing // 2)
            # A pair costs what two calls and all units cost, whichever pair it is.
            both = np.stack([first, ~first], axis=1).reshape(-1, first.shape[1])
            first = first[: affordable(self._game.tariff, both, self._cost) // 2]
            rows = np.concatenate([first, ~first])
        return self._charged(rows)

    def add(self, rows: Bools, values: Floats) -> None:
        """Take in a wave of `draw` with its values, and fit."""
        seen = self._seen
        opposite = seen.opposite
        if opposite is not None:
            rows = rows[: len(rows) // 2]
            values, others = np.split(values, 2)
            opposite = np.vstack([opposite, others])
        self._seen = replace(
            seen,
            rows=np.vstack([seen.rows, rows]),
            values=np.vstack([seen.values, values]),
            opposite=opposite,
        )
        self._refit()

    def pairing_pays(self) -> bool:
        """Whether the other half of the budget is best spent on the complements of this one.

        Pairs halve the rows and remove what is even in the game from the noise. That pays as soon
        as the units that matter have been found and are few, however many units there are.
        """
        found = self._fit
        if self._seen.paired or found is None or self.spent < _ENOUGH:
            return False
        if not found.cv_r2 > _FOUND:
            return False
        return 2 * self.spent >= _CALLS_PER_FOUND * relevant(found.weights[0])

    def complements(self) -> Bools:
        """The complements of all coalitions so far, as far as the tariff's limit pays for them."""
        rows = ~self._seen.rows
        return self._charged(rows[: affordable(self._game.tariff, rows, self._cost)])

    def add_complements(self, values: Floats) -> None:
        """Take in the values of `complements`: from now on rows are pairs."""
        opposite = np.full_like(self._seen.values, np.nan)
        opposite[: len(values)] = values
        self._seen = replace(self._seen, opposite=opposite)
        self._refit()

    def _charged(self, rows: Bools) -> Bools:
        if self._game.tariff is not None:
            self._cost += float(self._game.tariff.of(rows).sum())
        return rows

    def _refit(self) -> None:
        self._before, self._fit = self._fit, self._seen.fitted()
        self._waves.append({"samples": self.spent, "cv_r2": plain(self._fit.cv_r2)})

    def settled(self, tolerance: float) -> bool:
        """Whether more calls would change little: see `Auto`."""
        before, now = self._before, self._fit
        if before is None or now is None:
            return False
        known = self._seen.measured
        known = known[np.isfinite(known)]
        if known.size and np.ptp(known) == 0:
            return True
        if not abs(now.cv_r2 - before.cv_r2) < _STABLE:
            return False
        # Units that are as good as zero change places for ever.
        top = min(_TOP, relevant(now.weights[0]))
        strongest, earlier = (
            np.argsort(-np.abs(f.weights[0]), kind="stable")[:top] for f in (now, before)
        )
        if not np.array_equal(strongest, earlier):
            return False
        if now.cv_r2 > _PERFECT * self._seen.ceiling > 0:
            return True
        estimates, errors, _ = self._seen.estimates(now, slice(0, 1))
        if errors is None:
            return False
        widest = Z90 * errors[0, strongest].max(initial=0.0)
        # What is known better than one answer of the model repeats itself is known well enough.
        wanted = max(tolerance * np.abs(estimates[0]).max(), self._seen.noise)
        return bool(widest < wanted)

    def scores(self) -> Scores:
        """What all waves together say."""
        scores = self._seen.scores(self._fit)
        return replace(scores, details={**scores.details, "waves": self._waves})
