# SPDX-License-Identifier: Apache-2.0
"""Auto: the design and the estimator that the budget calls for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pizza import coalition
from pizza.abc import Estimator, Game, Plan, Scores
from pizza.errors import ConfigError
from pizza.methods._auto.halves_fit import Halves, noise_of
from pizza.methods._auto.waves import Waves
from pizza.methods._designs.budget import bill, check_samples, coalitions_to_spend
from pizza.methods._designs.enumeration import every
from pizza.methods._designs.given import halves, places
from pizza.methods._designs.halves import FEWEST, calls_of_halves
from pizza.methods._fits.pair_terms import mains_and_pairs
from pizza.methods._fits.quality import warned
from pizza.methods.banzhaf import Banzhaf
from pizza.methods.odd_shap import OddShap
from pizza.methods.paired_sparse_shap import PairedSparseShap
from pizza.methods.shapley import Shapley

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Index = Literal["banzhaf", "shapley"]

_WAVES = 4
_PAIRED_FROM = 1.5
_SHAPLEY_FROM = 2.5
_NEARLY_ALL = 0.9


class Auto(Estimator):
    """Chooses what gives the most faithful scores for the calls there are.

    * ``2^n - 1`` calls or more: every coalition, exact scores.
    * Below 1.5 calls per unit: random halves ("Banzhaf-type weights"). When the fit has an R2
      above 0.5 on left-out calls at half of the budget, these are 40 or more, and the budget is 7
      calls per unit that it found relevant, the other half goes to the complements of the first.
    * From there on: random halves with their complements; the odd part is fitted, in which pair
      interactions have cancelled.
    * ``index="shapley"`` from 2.5 calls per unit: 'odd-shap' (where it has no answer,
      'paired-sparse-shap', which has the same coalitions); below that Banzhaf-type weights are
      nearer to the Shapley values than most estimators of those, and are given instead.

    Halves are fitted by LASSO, ridge and a spike-and-slab prior, averaged as well as they predict
    left-out calls (`Blend`; ``details["shares"]``).

    Halves are asked for in waves of a quarter of the budget. It stops early when the R2 on
    left-out calls changed by less than 0.01, the strongest units (five, or fewer where fewer
    carry 95 % of the squared weights) are the same in the same order, and their 90 % intervals are
    within ``tolerance`` of the strongest score or within the noise of one answer (or R2 is above
    0.98 of what that noise allows). What was not spent stays unspent.

    Where the budget is counted in tokens or dollars, calls are counted as coalitions of half of the
    units, and are fewer when those that were drawn cost more: the limit is kept
    (``details["cost"]``).

    Every call is held out once, a fifth at a time, for ``details["quality"]``: LDS (rank
    correlation of predicted and measured values) and R2. Its ``warning`` says when the budget is
    too small for so many units, or when additive scores cannot describe the output.

    Standard errors come with pairs, when there are as many pairs as units and 8 calls per relevant
    unit (units that carry 95 % of the squared weights): of the one-step debiased fit, or of least
    squares with HC3 when there are more than 1.3 pairs per unit and its errors are smaller. Scores
    are then the estimates that the errors belong to, in all columns. The noise of the model is in
    the residuals, and so in the errors. The pairs of ``details["interactions"]`` come from the same
    calls; only those are listed whose 90 % interval leaves out 0.

    Args:
        samples: Coalitions to evaluate at most. ``None``: what the budget allows; without one 10
            per unit, 512 at most.
        index: ``"banzhaf"`` or ``"shapley"``: what the scores should estimate.
        early_stop: Whether calls are saved when the answer is settled.
        tolerance: Half-width of the strongest units' intervals, relative to the strongest score,
            at which the answer is settled.

    Cost: at most ``samples`` calls in four rounds, or one round of all coalitions or of
    'odd-shap'.
    """

    def __init__(
        self,
        samples: int | None = None,
        index: Index = "banzhaf",
        early_stop: bool = True,
        tolerance: float = 0.1,
    ) -> None:
        self.samples = check_samples(samples)
        if index not in ("banzhaf", "shapley"):
            raise ConfigError(f"the index is 'banzhaf' or 'shapley', not {index!r}.")
        if not tolerance > 0:
            raise ConfigError(f"tolerance is a number above 0, not {tolerance!r}.")
        self.index: Index = index
        self.early_stop = early_stop
        self.tolerance = tolerance

    def calls(self, n_units: int) -> tuple[int, int]:
        """8 at least, every coalition at most."""
        least, most = calls_of_halves(n_units, self.samples)
        return min(FEWEST, least), most

    def plan(self, game: Game) -> Plan:
        """One round, or four waves."""
        n = game.n_units
        budget = coalitions_to_spend(
            game,
            self.samples,
            fewest=FEWEST,
            default=min(10 * n, 512),
            who="auto",
            advice="use larger units (sentence, paragraph).",
            share=0.5,
        )
        if budget == 2**n - 1:
            rows = every(n)
            return _enumerated(game, rows, (yield rows), self.index)
        if self.index == "shapley" and budget >= _SHAPLEY_FROM * n:
            # Pairs cost what half coalitions cost: the calls of the tariff are enough for them.
            inner = replace(game, max_calls=budget, tariff=None)
            rows = next(OddShap(samples=budget).plan(inner))
            return _shapley(game, rows, (yield rows), budget)
        waves = Waves(game, paired=budget >= _PAIRED_FROM * n)
        for wave in range(1, _WAVES + 1):
            if wave == 1 + _WAVES // 2 and waves.pairing_pays():
                waves.add_complements((yield waves.complements()))
                break
            rows = waves.draw(budget * wave // _WAVES)
            if len(rows):
                waves.add(rows, (yield rows))
            if self.early_stop and wave < _WAVES and waves.settled(self.tolerance):
                break
        return self._told(waves.scores(), waves.unspent(budget))

    def estimate(self, game: Game, coalitions: Bools, values: Floats) -> Scores:
        """From all coalitions, or from random halves, in pairs or not.

        Pairs are fitted as such when nine tenths of the coalitions come with their complements; the
        others are left out then. With ``index="shapley"`` also from the pairs of 'odd-shap'.
        """
        try:
            rows, values, complete = halves(game, coalitions, values, who="auto")
        except ConfigError:
            if self.index != "shapley":
                raise
            return _shapley(game, coalitions, values, len(coalitions))
        if complete:
            return _enumerated(game, rows, values, self.index)
        first, second = _complements(rows)
        given = Halves(rows=rows, values=values, noise=noise_of(game))
        if 2 * len(first) >= max(_NEARLY_ALL * len(rows), FEWEST):
            given = replace(given, rows=rows[first], values=values[first], opposite=values[second])
        return self._told(given.scores(None), {"unspent": 0, "unpaired": len(rows) - given.spent})

    def _told(self, scores: Scores, more: dict[str, Any]) -> Scores:
        details = {**scores.details, **more}
        if self.index == "shapley":
            details["asked_for"] = "shapley"
        return replace(scores, details=details, warnings=warned(details))


def _complements(rows: Bools) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows that come before their complements, and those."""
    place = places(rows)
    others = np.array([place.get(coalition.key(~row), -1) for row in rows])
    first = np.flatnonzero(others > np.arange(len(rows)))
    return first, others[first]


def _enumerated(game: Game, rows: Bools, values: Floats, index: Index) -> Scores:
    """Exact scores of the index that was asked for; the other one in the details."""
    exact = {
        "banzhaf": Banzhaf().estimate(game, rows, values),
        "shapley": Shapley().estimate(game, rows, values),
    }
    chosen = exact[index]
    details: dict[str, Any] = {
        **_known_of(game, rows),
        "index": index,
        "design": "all coalitions",
        "estimator": "enumeration",
        "samples": 2**game.n_units - 1,
        "unspent": 0,
        "exact": {name: _listed(scores.values[0]) for name, scores in exact.items()},
        "quality": {"lds": None, "r2": None, "cv_r2": None, "warning": None},
        "interactions": mains_and_pairs(rows, values[:, :1], complete=True).listed()[:10],
    }
    return Scores(values=chosen.values, standard_errors=chosen.standard_errors, details=details)


def _known_of(game: Game, rows: Bools) -> dict[str, Any]:
    """The noise and the cost of the calls, where they are known."""
    noise = noise_of(game)
    found: dict[str, Any] = {"noise": noise} if noise else {}
    if game.tariff is not None:
        paid = rows[~rows.all(axis=1)]
        found |= bill(game.tariff, float(game.tariff.of(paid).sum()))
    return found


def _listed(row: Floats) -> list[float | None]:
    return [float(x) if np.isfinite(x) else None for x in row]


def _shapley(game: Game, rows: Bools, values: Floats, budget: int) -> Scores:
    """OddSHAP and the sparse fit on the same pairs: one scores, the other says how well it fits."""
    odd, sparse = (
        method.estimate(game, rows, values) for method in (OddShap(), PairedSparseShap())
    )
    details = {
        **sparse.details,
        **odd.details,
        **_known_of(game, rows),
        "index": "shapley",
        "design": "complement pairs of uniform sizes",
        "estimator": "odd-shap",
        "unspent": budget - sparse.details["samples"],
    }
    return Scores(
        values=np.where(np.isnan(odd.values), sparse.values, odd.values),
        details=details,
        warnings=warned(details),
    )
