# SPDX-License-Identifier: Apache-2.0
"""Other values for the slots of a template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pizza.abc import Resources
from pizza.errors import ConfigError
from pizza.perturbations._replacement import ReplacementStrategy
from pizza.perturbations._seeds import generator
from pizza.prompt import Prompt, Unit

Values = Mapping[Any, Any]


class Baseline(ReplacementStrategy):
    """Each absent slot of a template gets a baseline value, as in Captum's template baselines.

    Use with ``units="slot"``. One draw is made per attribution, so all its values compare the same
    two texts of each slot (Captum draws again for every model call, which mixes the choice of a
    baseline into the effect of a slot). Average attributions over ``sample=0, 1, ...`` for the
    expectation over baselines.

    Args:
        values: Per slot name: a text; a list of texts, of which one is drawn; or a function that
            takes a `numpy.random.Generator` and returns a text. Slots are drawn independently
            (the product of the lists). A tuple of names is drawn jointly: its texts are tuples
            of the same length. Or one function that takes a generator and returns all this.
        default: For slots that ``values`` does not name.
        sample: Number of the draw.
        seed: Instead of the attribution's seed.
    """

    def __init__(
        self,
        values: Values | Callable[[np.random.Generator], Values] | None = None,
        default: str = "",
        sample: int = 0,
        seed: int | None = None,
    ) -> None:
        self._values = {} if values is None else values
        self._default = default
        self._sample = sample
        self._seed = seed

    def replacements(
        self, prompt: Prompt, units: Sequence[Unit], resources: Resources
    ) -> Sequence[str]:
        """The drawn value of each unit's slot.

        Raises:
            ConfigError: A unit is not a slot, or ``values`` does not fit the template.
        """
        names = [_slot_of(prompt, unit) for unit in units]
        drawn = self._draw({slot.name for slot in prompt.slots}, resources.seed)
        return [drawn.get(name, self._default) for name in names]

    def _draw(self, slots: set[str], seed: int) -> dict[str, str]:
        seed = seed if self._seed is None else self._seed
        values = self._values
        if callable(values):
            values = values(generator(seed, self._sample, ""))
        if not isinstance(values, Mapping):
            raise ConfigError(
                "the values of 'baseline' are a mapping from slot names to texts, or a function "
                f"that returns one, not {values!r}."
            )
        drawn: dict[str, str] = {}
        for key, choices in values.items():
            names = key if isinstance(key, tuple) else (key,)
            unknown = [name for name in names if name not in slots]
            if unknown or any(name in drawn for name in names):
                raise ConfigError(
                    f"the baseline values of {key!r} do not fit: each slot may be named once, "
                    f"and the template's slots are {', '.join(sorted(slots))}."
                )
            # One stream per slot: naming a further slot leaves the draws of the others alone.
            chosen = _choose(choices, generator(seed, self._sample, "\0".join(names)), key)
            texts = chosen if isinstance(key, tuple) else (chosen,)
            if (
                not isinstance(texts, Sequence)
                or len(texts) != len(names)
                or not all(isinstance(text, str) for text in texts)
            ):
                raise ConfigError(
                    f"a baseline of {key!r} is "
                    f"{'a tuple of as many texts' if isinstance(key, tuple) else 'a text'}, not "
                    f"{chosen!r}."
                )
            drawn.update(zip(names, texts, strict=True))
        return drawn


def _choose(choices: Any, random: np.random.Generator, key: Any) -> Any:
    if callable(choices):
        return choices(random)
    if isinstance(choices, str):
        return choices
    if isinstance(choices, tuple) and all(isinstance(choice, str) for choice in choices):
        # For a tuple of slots this is one joint value; for a single slot it is a list like any.
        if isinstance(key, tuple):
            return choices
    elif not isinstance(choices, Sequence):
        raise ConfigError(
            f"the baselines of {key!r} are a text, a list of texts or a function, not {choices!r}."
        )
    if not choices:
        raise ConfigError(f"the list of baselines of {key!r} is empty.")
    return choices[int(random.integers(len(choices)))]


def _slot_of(prompt: Prompt, unit: Unit) -> str:
    for slot in prompt.slots:
        if (slot.message, slot.start, slot.end) == (unit.message, unit.start, unit.end):
            return slot.name
    raise ConfigError(
        f"'baseline' replaces whole slots of a template, and the unit {unit.name!r} is not one. "
        "Use units='slot' with pizza.Prompt.template(...), or another strategy."
    )
