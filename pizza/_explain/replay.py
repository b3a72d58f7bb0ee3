# SPDX-License-Identifier: Apache-2.0
"""Methods on coalitions that were measured before."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza import coalition
from pizza._explain.scored import checked
from pizza._parts import Part
from pizza._plugins import Registry
from pizza.abc import Estimator, Game, Method, Plan, Scores, Tariff
from pizza.completion import frozen_array
from pizza.errors import ConfigError

Floats = NDArray[np.float64]


class NotMeasuredError(ConfigError):
    """A method asks for coalitions that were not measured.

    Attributes:
        missing: How many of the coalitions that it asked for in one round.
        asked: How many it asked for.
    """

    def __init__(self, message: str, *, missing: int, asked: int) -> None:
        self.missing = missing
        self.asked = asked
        super().__init__(message)


class Known:
    """Values of coalitions, to look up.

    Args:
        coalitions: ``(n, n_units)``.
        values: ``(n, n_columns)``.
    """

    def __init__(self, coalitions: NDArray[np.bool_], values: Floats) -> None:
        self.coalitions = coalitions
        self.values = values
        self._row_of = {coalition.key(row): at for at, row in enumerate(coalitions)}
        self._used: set[int] = set()

    def __len__(self) -> int:
        return len(self.coalitions)

    @property
    def used_up(self) -> bool:
        """Whether every coalition was asked for."""
        return len(self._used) == len(self.coalitions)

    def column(self, number: int) -> Known:
        """The same with one column."""
        return Known(self.coalitions, self.values[:, number : number + 1])

    def look_up(self, asked: NDArray[np.bool_], who: str) -> Floats:
        """The values ``(m, n_columns)`` of coalitions ``(m, n_units)``.

        Raises:
            NotMeasuredError: Some are not known.
        """
        result = np.zeros((len(asked), self.values.shape[1]))
        missing = 0
        for at, row in enumerate(asked):
            if row.all():
                continue
            found = self._row_of.get(coalition.key(row))
            if found is None:
                missing += 1
            else:
                self._used.add(found)
                result[at] = self.values[found]
        if missing:
            raise NotMeasuredError(
                f"{who!r} asks for coalitions of its own, and {missing} of {len(asked)} were not "
                "measured.",
                missing=missing,
                asked=len(asked),
            )
        return result


def replayed(method: Part, game: Game, known: Known) -> Scores:
    """Follow a method's plan with known values.

    Raises:
        NotMeasuredError: It asks for a coalition that is not known.
        PluginContractError: It yields or returns something of a wrong shape.
    """
    plan: Plan = method.value.plan(game)
    values: Floats | None = None
    try:
        while True:
            asked = plan.send(values)  # type: ignore[arg-type]
            rows = coalition.check(asked, game.n_units, who=f"the method {method.name!r}")
            values = known.look_up(rows, method.name)
    except StopIteration as end:
        return checked(end.value, game, method.name)
    finally:
        plan.close()


def estimated(method: Part, game: Game, known: Known) -> Scores:
    """What an estimator concludes from all that is known.

    Raises:
        ConfigError: It does not suit coalitions like these.
    """
    return checked(method.value.estimate(game, known.coalitions, known.values), game, method.name)


# --- the game ---------------------------------------------------------------------------------


def recorded(game: Game) -> dict[str, Any]:
    """What a plan depends on besides the prompt, as plain JSON values."""
    tariff = game.tariff
    return {
        "max_calls": game.max_calls,
        "tariff": None
        if tariff is None
        else {
            "currency": tariff.currency,
            "call": tariff.call,
            "units": tariff.units.tolist(),
            "limit": tariff.limit,
            "max_calls": tariff.max_calls,
        },
    }


def games(game: Game, provenance: Mapping[str, Any], n_measured: int) -> Iterator[Game]:
    """The game of a run, or, where it was not recorded, what it may have been."""
    said = provenance.get("game")
    if said is not None:
        tariff = said["tariff"]
        if tariff is not None:
            tariff = Tariff(**{**tariff, "units": frozen_array(tariff["units"])})
        yield replace(game, max_calls=said["max_calls"], tariff=tariff)
        return
    details = (provenance.get("method") or {}).get("details", {})
    spent = [details.get("samples"), details.get("unspent")]
    sizes: list[int | None] = [None, n_measured]
    if all(isinstance(number, int) for number in spent):
        sizes.insert(0, sum(spent))
    for size in sizes:
        yield replace(game, max_calls=size)


def suitable(registry: Registry, game: Game, known: Known) -> tuple[str, ...]:
    """The methods that work on what was measured, found by trying (on the first column)."""
    first, names = known.column(0), []
    game = replace(game, n_columns=1, max_calls=None, noise=None, noise_all=None, tariff=None)
    for spec in registry.specs("method"):
        if spec.requires:
            continue
        # A stranger's method may fail in any way; whoever names it will see how.
        try:
            made = registry.create("method", spec.name, {})
            part = Part(kind="method", name=spec.name, value=made)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if isinstance(made, Estimator):
                    estimated(part, game, first)
                elif isinstance(made, Method) and made.calls(game.n_units)[0] <= len(known):
                    replayed(part, game, first)
                else:
                    continue
        except Exception:  # noqa: S112
            continue
        names.append(spec.name)
    return tuple(names)
