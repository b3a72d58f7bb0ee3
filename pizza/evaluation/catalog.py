# SPDX-License-Identifier: Apache-2.0
"""The measures by name."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from pizza.errors import ConfigError, UnknownNameError
from pizza.evaluation.completeness import CompletenessError
from pizza.evaluation.curves import Deletion, Insertion
from pizza.evaluation.infidelity import Infidelity
from pizza.evaluation.lds import LinearDatamodelingScore
from pizza.evaluation.measure import Measure
from pizza.evaluation.shapley_correlation import ShapleyCorrelation
from pizza.evaluation.tau_loo import TauLoo
from pizza.evaluation.top_units import Comprehensiveness, Sufficiency, TopKDrop
from pizza.specs import Choice, parse_choice

MEASURES: dict[str, type[Measure]] = {
    kind.name: kind
    for kind in (
        LinearDatamodelingScore,
        Deletion,
        Insertion,
        Comprehensiveness,
        Sufficiency,
        TopKDrop,
        Infidelity,
        CompletenessError,
        ShapleyCorrelation,
        TauLoo,
    )
}

USUAL = tuple(name for name in MEASURES if name != TauLoo.name)
"""What is measured when nobody names a measure, as far as it can be."""


def named(choices: str | Choice | Measure | Sequence[Any]) -> tuple[Measure, ...]:
    """Measures from names, ``"name:option=value"``, choices or objects.

    Raises:
        UnknownNameError: There is no measure of that name.
        ConfigError: An option does not fit, nothing was named, or the same thing twice.
    """
    several = [choices] if isinstance(choices, (str, Choice, Measure)) else list(choices)
    if not several:
        raise ConfigError("no measure was named: give at least one, e.g. measures=['lds'].")
    found = tuple(_made(choice) for choice in several)
    labels = [measure.label for measure in found]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ConfigError(f"the measure {twice[0]!r} was named twice.")
    return found


def _made(choice: Any) -> Measure:
    if isinstance(choice, Measure):
        return choice
    if isinstance(choice, str):
        choice = parse_choice(choice)
    if not isinstance(choice, Choice):
        raise ConfigError(f"a measure is a name or a pizza.Choice, not {choice!r}.")
    if choice.name not in MEASURES:
        raise UnknownNameError("measure", choice.name, MEASURES)
    kind = MEASURES[choice.name]
    takes = [n for n in inspect.signature(kind).parameters if n != "options"]
    if unknown := sorted(set(choice.options) - set(takes)):
        raise ConfigError(
            f"the measure {choice.name!r} has no option {unknown[0]!r}. "
            f"It takes: {', '.join(takes) or 'none'}."
        )
    return kind(**choice.options)
