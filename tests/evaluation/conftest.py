# SPDX-License-Identifier: Apache-2.0
"""Drives an examination on a game with known answers, without any I/O."""

from dataclasses import dataclass

import numpy as np
import pytest

from pizza import coalition
from pizza.evaluation.case import Case
from pizza.evaluation.catalog import named
from pizza.evaluation.plan import Examination


@dataclass(frozen=True)
class Examined:
    """What an examination found and asked for.

    Attributes:
        results: By measure.
        paid: The distinct coalitions that were asked for without the full one.
        effort: What the budget allowed.
    """

    results: dict
    paid: np.ndarray
    effort: object

    def __getitem__(self, measure):
        return self.results[measure]


@pytest.fixture
def examine():
    """Measures of ``scores`` on the game ``value(present (m, n)) -> (m,)``."""

    def run(measures, value, scores, *, budget=256, used=(), known=(), **fields):
        scores = np.asarray(scores, dtype=float)
        n = len(scores)
        case = Case(
            scores=scores,
            used=frozenset(coalition.key(np.asarray(row, dtype=bool)) for row in used),
            **{"scale": "nats", **fields},
        )
        full = value(np.ones((1, n), dtype=bool))[0]
        values = {
            coalition.key(row): float(value(row[None])[0] - full)
            for row in np.asarray(known, dtype=bool).reshape(-1, n)
        }
        examination = Examination(named(measures), case, budget)
        effort = examination.effort(values.keys())
        plan = examination.plan(effort, known=values)
        paid = {}
        answers = None
        while True:
            try:
                rows = plan.send(answers)
            except StopIteration as end:
                results = {result.measure: result for result in end.value}
                table = np.array(list(paid.values()), dtype=bool).reshape(-1, n)
                return Examined(results, table, effort)
            assert rows.dtype == bool
            assert rows.shape[1] == n
            paid.update((row.tobytes(), row) for row in rows if not row.all())
            answers = (np.asarray(value(rows), dtype=float) - full)[:, None]

    return run
