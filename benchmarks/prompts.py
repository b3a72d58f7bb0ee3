# SPDX-License-Identifier: Apache-2.0
"""How faithful methods are on real prompts of the embedded model, for the calls that they take.

    python benchmarks/prompts.py --prompts 24

Held-out prompts of 20 to 60 words, half of them with every fact stated twice. Each method explains
each prompt with each budget; LDS is the rank correlation of predicted and measured log-probability
of the answer on 128 random half coalitions that nobody saw. The estimators of TokenSHAP and LIME
run on the same prompts through the same session. Figures are the mean over prompts +- its standard
error.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from pizza_embedded.world import heldout
from sklearn.linear_model import Ridge

import pizza
from pizza.abc import Estimator, Game, Plan, Scores
from pizza.errors import BudgetTooSmallError

BUDGETS = (32, 64, 128)
HELD_OUT = 128
REFERENCES = 2
"""Calls that the unperturbed prompt takes: its completion, and the same scored."""


class Peer(Estimator):
    """Somebody else's design and estimator, run like a method.

    Args:
        draw: ``(n_units, calls, rng)`` -> coalitions.
        score: Coalitions and values -> scores.
    """

    def __init__(self, draw: Callable[..., Any], score: Callable[..., Any]) -> None:
        self.draw, self.score = draw, score

    def plan(self, game: Game) -> Plan:
        """One round."""
        calls = game.max_calls or 0
        rows = self.draw(game.n_units, calls, np.random.default_rng(game.seed))
        if len(np.unique(rows, axis=0)) > calls + 1:
            raise BudgetTooSmallError("too few calls", needed=len(rows), allowed=calls)
        return self.estimate(game, rows, (yield rows))

    def estimate(self, game: Game, coalitions: np.ndarray, values: np.ndarray) -> Scores:
        """One fit per column."""
        columns = [self.score(coalitions, v) for v in np.nan_to_num(values).T]
        return Scores(values=np.array(columns))


def token_shap_rows(n: int, calls: int, rng: np.random.Generator) -> np.ndarray:
    """All coalitions that lack one unit, then random ones."""
    return np.vstack([~np.eye(n, dtype=bool), rng.random((max(0, calls - n), n)) < 0.5])


def token_shap(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A difference of means."""
    inside = rows.T @ values / np.maximum(1, rows.sum(axis=0))
    return np.asarray(inside - (~rows).T @ values / np.maximum(1, (~rows).sum(axis=0)))


def lime_rows(n: int, calls: int, rng: np.random.Generator) -> np.ndarray:
    """The whole text, then random halves."""
    return np.vstack([np.ones((1, n), dtype=bool), rng.random((calls, n)) < 0.5])


def lime(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The weighted ridge of LIME's text explainer, by scikit-learn."""
    distance = 100 * (1 - np.sqrt(rows.mean(axis=1)))
    kernel = np.sqrt(np.exp(-(distance**2) / 25**2))
    return np.asarray(Ridge(alpha=1.0).fit(rows, values, sample_weight=kernel).coef_)


METHODS: dict[str, Any] = {
    "auto": "auto",
    "context-cite": "context-cite",
    "kernel-shap": "kernel-shap",
    "paired-sparse-shap": "paired-sparse-shap",
    "multi-level": "multi-level",
    "random-ablation": "random-ablation",
    "TokenSHAP-type": Peer(token_shap_rows, token_shap),
    "LIME-type ridge (sklearn)": Peer(lime_rows, lime),
}


def prompts(n: int) -> list[str]:
    """Different held-out prompts of some length, with and without redundant facts."""
    found: list[str] = []
    for redundant in (False, True):
        drawn = [e.text for e in heldout(40 * n, seed=5, redundant=redundant)]
        usable = [t for t in dict.fromkeys(drawn) if 20 <= len(t.split()) <= 60]
        found += usable[: n // 2]
    return found


async def faithfulness(
    session: pizza.Session, prompt: str, seed: int, cells: dict[tuple[str, int], list[float]]
) -> None:
    """All methods and budgets on one prompt."""

    async def measured(name: str, column: int, **options: Any) -> None:
        try:
            attribution = await session.attribute(prompt, seed=seed, **options)
        except BudgetTooSmallError:
            return
        evaluation = await session.evaluate(
            attribution, measures=["lds"], budget=HELD_OUT + REFERENCES, seed=1000 + seed
        )
        cells.setdefault((name, column), []).append(evaluation["lds"].value)

    await measured("leave-one-out (all its calls)", BUDGETS[-1])
    for name, method in METHODS.items():
        for budget in BUDGETS:
            await measured(name, budget, method=method, budget=budget)


async def main(n: int) -> None:
    """Print the table, and what must hold."""
    cells: dict[tuple[str, int], list[float]] = {}
    async with pizza.Session("embedded") as session:
        for seed, prompt in enumerate(prompts(n)):
            await faithfulness(session, prompt, seed, cells)
    names = list(dict.fromkeys(name for name, _ in cells))
    print("| LDS | " + " | ".join(f"{b} calls" for b in BUDGETS) + " |")
    print("|---" * (1 + len(BUDGETS)) + "|")
    for name in names:
        figures = [
            f"{np.mean(c):.3f} ± {np.std(c) / np.sqrt(len(c)):.3f}" if c else "-"
            for c in (cells.get((name, b), []) for b in BUDGETS)
        ]
        print(f"| {name} | " + " | ".join(figures) + " |")
    for budget in BUDGETS:
        ours = [m for m in METHODS if m[0].islower() and len(cells.get((m, budget), ())) == n]
        means = {m: float(np.mean(cells[m, budget])) for m in ours}
        best = max(means, key=lambda m: means[m])
        behind = means[best] - means["auto"]
        verdict = "holds " if behind <= 0.02 else "MISSED"
        print(f"{verdict}  {budget} calls: auto behind the best of ours ({best}): {behind:.3f}")
        peers = [m for m in METHODS if m not in ours and (m, budget) in cells]
        ahead = means["auto"] - max(float(np.mean(cells[m, budget])) for m in peers)
        verdict = "holds " if ahead >= 0 else "MISSED"
        print(f"{verdict}  {budget} calls: auto ahead of the best peer: {ahead:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=24, help="how many (24)")
    asyncio.run(main(parser.parse_args().prompts))
