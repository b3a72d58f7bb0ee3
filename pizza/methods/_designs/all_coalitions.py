# SPDX-License-Identifier: Apache-2.0
"""The round of exact indices: all coalitions."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pizza.abc import Estimator, Game, Plan, Scores
from pizza.errors import ConfigError
from pizza.methods._designs.budget import require
from pizza.methods._designs.enumeration import Floats, every
from pizza.methods._designs.given import finite, in_order_of_bits

LARGEST = 20
"""Units that are enumerated at most: 2^20 is a million coalitions."""


class AllCoalitions(Estimator):
    """Evaluates every coalition, and says what they say together.

    Attributes:
        name: Of the method, and of the index that it gives.
        estimators: What needs fewer calls, as text.
    """

    name: ClassVar[str]
    estimators: ClassVar[str]

    @abstractmethod
    def scores(self, game: Game, values: Floats) -> tuple[Floats, Floats | None]:
        """Scores and standard errors, ``(n_columns, n_units)``.

        Args:
            game: The game.
            values: Of all coalitions, in the order of `every`; NaN = not defined.
        """

    def calls(self, n_units: int) -> tuple[int, int]:
        """Every coalition but the full one."""
        return 2**n_units - 1, 2**n_units - 1

    def plan(self, game: Game) -> Plan:
        """One round of all coalitions."""
        self._refuse_too_many(game)
        require(game, 2**game.n_units - 1, self.name, advice=self._instead)
        return self._scored(game, finite((yield every(game.n_units))))

    def estimate(
        self, game: Game, coalitions: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> Scores:
        """The exact values, from all coalitions in any order."""
        self._refuse_too_many(game)
        return self._scored(game, in_order_of_bits(game, coalitions, values, who=self.name))

    def _scored(self, game: Game, values: Floats) -> Scores:
        scores, errors = self.scores(game, values)
        return Scores(
            values=scores,
            standard_errors=errors,
            details={
                "index": self.name,
                "samples": len(values) - 1,
                "undefined": int(np.isnan(values[:, 0]).sum()),
            },
        )

    @property
    def _instead(self) -> str:
        return f"use larger units (sentence, paragraph), or an estimator: {self.estimators}."

    def _refuse_too_many(self, game: Game) -> None:
        if game.n_units > LARGEST:
            raise ConfigError(
                f"{self.name} evaluates all 2^n coalitions, so it takes at most {LARGEST} units, "
                f"not {game.n_units}: {self._instead}"
            )
