# SPDX-License-Identifier: Apache-2.0
"""What a method concludes from coalitions that were measured before."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pizza._explain.columns import Columns
from pizza._explain.noise import of_values
from pizza._explain.replay import (
    Known,
    NotMeasuredError,
    estimated,
    games,
    replayed,
    suitable,
)
from pizza._parts import Part
from pizza._plugins import Registry
from pizza.abc import Estimator, Game, Scores
from pizza.attribution import Attribution
from pizza.completion import frozen_array

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Conclusion:
    """Scores, and how a method came by them.

    Attributes:
        scores: The scores.
        how: ``"replayed"``: its plan was followed; ``"estimated"``: from all coalitions.
    """

    scores: Scores
    how: str = "replayed"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """A method and what it concludes from.

    Attributes:
        attribution: Whose coalitions.
        registry: Where methods are found.
        method: The method.
        columns: The values.
        seed: Seed of everything random.
    """

    attribution: Attribution
    registry: Registry
    method: Part
    columns: Columns
    seed: int

    def own(self) -> Conclusion:
        """The run's own method, applied in the way that it was.

        Raises:
            NotMeasuredError: Its plan cannot be followed.
        """
        told = self.attribution.provenance
        if told.get("reanalysis", {}).get("how") == "estimated":
            return self.named()
        steering = self._steering()
        for game in games(self._game(steering), told, len(self.attribution.evaluations)):
            first = self._known(steering.values[:, :1])
            try:
                replayed(self.method, _of_first_column(game), first)
            except NotMeasuredError:
                continue
            if first.used_up:
                return self._steered(game, steering)
        return self.named()

    def named(self) -> Conclusion:
        """A method that need not have chosen the coalitions.

        Raises:
            NotMeasuredError: It asks for others; methods that work are named.
            ConfigError: It is an estimator and does not suit them.
        """
        game, known = self._game(self.columns), self._known(self.columns.values)
        if isinstance(self.method.value, Estimator):
            return Conclusion(estimated(self.method, game, known), how="estimated")
        failure: NotMeasuredError | None = None
        for candidate in games(game, self.attribution.provenance, len(known)):
            try:
                return Conclusion(replayed(self.method, candidate, known))
            except NotMeasuredError as error:
                failure = failure or error
        assert failure is not None  # noqa: S101 - there is at least one candidate
        works = ", ".join(suitable(self.registry, game, known)) or "none"
        raise NotMeasuredError(
            f"{failure} Methods that work on what was measured: {works}. Or explain the prompt "
            f"with session.attribute(method={self.method.name!r}).",
            missing=failure.missing,
            asked=failure.asked,
        )

    def _steered(self, game: Game, steering: Columns) -> Conclusion:
        """Follow the plan with the new values, or, where these lead elsewhere, beside the old."""
        new, old = self.columns.values, steering.values
        own = replace(self._game(self.columns), max_calls=game.max_calls, tariff=game.tariff)
        try:
            return Conclusion(replayed(self.method, own, self._known(new)))
        except NotMeasuredError:
            pass
        both = np.hstack([old, new])
        wide = replace(own, n_columns=both.shape[1], noise=None, noise_all=None)
        scores = replayed(self.method, wide, self._known(both))
        errors, cut = scores.standard_errors, slice(old.shape[1], None)
        told = (
            f"the coalitions were chosen by {steering.labels[0]}: {self.method.name!r} would have "
            f"asked for others by {self.columns.labels[0]}."
        )
        return Conclusion(
            replace(
                scores,
                values=scores.values[cut],
                standard_errors=None if errors is None else errors[cut],
                warnings=(told, *scores.warnings),
            )
        )

    def _known(self, values: Floats) -> Known:
        return Known(self.attribution.evaluations.coalitions, values)

    def _steering(self) -> Columns:
        """The columns that the run's method chose its coalitions by."""
        stored = self.attribution.evaluations.effects
        return Columns(
            labels=tuple(stored),
            metrics=(),
            effects=tuple(stored.values()),
            noise=self.attribution.noise,
        )

    def _game(self, columns: Columns) -> Game:
        from pizza.segmenters.groups import groups

        prompt, units = self.attribution.prompt, self.attribution.units
        sigma, sigma_all = of_values(columns.noise, columns.labels)
        return Game(
            n_units=len(units),
            n_columns=columns.values.shape[1],
            groups=frozen_array(groups(prompt, units), dtype=np.int64),
            lengths=frozen_array([len(u.text) for u in units], dtype=np.int64),
            seed=self.seed,
            noise=sigma,
            noise_all=sigma_all,
        )


def _of_first_column(game: Game) -> Game:
    def first(noise: Floats | None) -> Floats | None:
        return None if noise is None else noise[:1]

    return replace(game, n_columns=1, noise=first(game.noise), noise_all=first(game.noise_all))
