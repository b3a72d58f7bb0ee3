# SPDX-License-Identifier: Apache-2.0
"""Auto: the design and the estimator that the budget calls for."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Game, Method, Plan, Scores
from pizza.errors import ConfigError
from pizza.methods._draws import FEWEST, calls_of_halves
from pizza.methods._quality import warned
from pizza.methods._samples import check_samples, coalitions_to_spend
from pizza.methods._waves import Waves
from pizza.methods.banzhaf import Banzhaf
from pizza.methods.odd_shap import OddShap
from pizza.methods.paired_sparse_shap import PairedSparseShap
from pizza.methods.pairwise_interactions import mains_and_pairs
from pizza.methods.shapley import Shapley

Floats = NDArray[np.float64]
Index = Literal["banzhaf", "shapley"]

_WAVES = 4
_PAIRED_FROM = 1.5
_SHAPLEY_FROM = 2.5


class Auto(Method):
    """Chooses what gives the most faithful scores for the calls there are.

    * ``2^n - 1`` calls or more: every coalition, exact scores.
    * Below 1.5 calls per unit: random halves, LASSO or ridge, whichever predicts left-out calls
      better by cross-validation ("Banzhaf-type weights"). When a LASSO has an R2
      above 0.6 on left-out calls at half of the budget, and the budget is 10 calls per unit that it
      found relevant, the other half goes to the complements of the first.
    * From there on: random halves with their complements; the odd part is fitted, in which pair
      interactions have cancelled.
    * ``index="shapley"`` from 2.5 calls per unit: 'odd-shap' (where it has no answer,
      'paired-sparse-shap', which has the same coalitions); below that Banzhaf-type weights are
      nearer to the Shapley values than most estimators of those, and are given instead.

    Halves are asked for in waves of a quarter of the budget. It stops early when the R2 on
    left-out calls changed by less than 0.01, the five strongest units are the same in the same
    order, and their 90 % intervals are within ``tolerance`` of the strongest score (or R2 is above
    0.98). What was not spent stays unspent.

    Every call is held out once, a fifth at a time, for ``details["quality"]``: LDS (rank
    correlation of predicted and measured values) and R2. Its ``warning`` says when the budget is
    too small for so many units, or when additive scores cannot describe the output.

    Standard errors come with pairs, from 8 calls per relevant unit on (units that carry 95 % of
    the squared weights): of the one-step debiased fit, or of least squares with HC3 when there are
    more than 1.3 pairs per unit and its errors are smaller. Scores are then the estimates that the
    errors belong to, in all columns. The pairs of ``details["interactions"]`` come from the same
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
        )
        if budget == 2**n - 1:
            return (yield from _enumerated(game, self.index))
        if self.index == "shapley" and budget >= _SHAPLEY_FROM * n:
            return (yield from _shapley(game, budget))
        waves = Waves(n, game.n_columns, paired=budget >= _PAIRED_FROM * n, seed=game.seed)
        for wave in range(1, _WAVES + 1):
            if wave == 1 + _WAVES // 2 and waves.pairing_pays():
                waves.add_complements((yield waves.complements()))
                break
            rows = waves.draw(budget * wave // _WAVES)
            if len(rows):
                waves.add(rows, (yield rows))
            if self.early_stop and wave < _WAVES and waves.settled(self.tolerance):
                break
        scores = waves.scores()
        details = {**scores.details, "unspent": budget - waves.spent}
        if self.index == "shapley":
            details["asked_for"] = "shapley"
        return Scores(
            values=scores.values,
            standard_errors=scores.standard_errors,
            details=details,
            warnings=warned(details),
        )


def _answers(plan: Plan, values: Floats) -> Scores:
    """The scores of a plan of one round whose values are known."""
    next(plan)
    try:
        plan.send(values)
    except StopIteration as end:
        scores: Scores = end.value
        return scores
    raise AssertionError("a plan of one round asked for a second")


def _enumerated(game: Game, index: Index) -> Plan:
    """Exact scores of the index that was asked for; the other one in the details."""
    rows = next(Banzhaf().plan(game))
    values = yield rows
    exact = {"banzhaf": _answers(Banzhaf().plan(game), values)}
    exact["shapley"] = _answers(Shapley().plan(game), values)
    chosen = exact[index]
    details: dict[str, Any] = {
        "index": index,
        "design": "all coalitions",
        "estimator": "enumeration",
        "samples": len(rows) - 1,
        "unspent": 0,
        "exact": {name: _listed(scores.values[0]) for name, scores in exact.items()},
        "quality": {"lds": None, "r2": None, "cv_r2": None, "warning": None},
        "interactions": mains_and_pairs(rows, values[:, :1], complete=True).listed()[:10],
    }
    return Scores(values=chosen.values, standard_errors=chosen.standard_errors, details=details)


def _listed(row: Floats) -> list[float | None]:
    return [float(x) if np.isfinite(x) else None for x in row]


def _shapley(game: Game, budget: int) -> Plan:
    """OddSHAP and the sparse fit on the same pairs: one scores, the other says how well it fits."""
    methods = OddShap(samples=budget), PairedSparseShap(samples=budget)
    values = yield next(methods[0].plan(game))
    odd, sparse = (_answers(method.plan(game), values) for method in methods)
    details = {
        **sparse.details,
        **odd.details,
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
