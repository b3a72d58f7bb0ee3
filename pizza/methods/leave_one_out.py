# SPDX-License-Identifier: Apache-2.0
"""Leave-one-out: remove each unit alone."""

from __future__ import annotations

from pizza import coalition
from pizza.abc import Game, Method, Plan, Scores
from pizza.methods._budget import require


class LeaveOneOut(Method):
    """``score_i = v(all) - v(all without i)``: the effect of removing unit i.

    Also known as occlusion (Zeiler & Fergus 2014) and feature ablation. Units that stand in for
    one another (two copies of the same evidence) both score near 0.

    Cost: n_units calls, all in one round.
    """

    def calls(self, n_units: int) -> tuple[int, int]:
        """One call per unit."""
        return n_units, n_units

    def plan(self, game: Game) -> Plan:
        """One round of all coalitions that lack one unit."""
        require(game, game.n_units, "leave-one-out")
        values = yield coalition.without_each(game.n_units)
        return Scores(values=-values.T)
