# SPDX-License-Identifier: Apache-2.0
"""How an attribution was made, read back from its provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza._explain.job import Context
from pizza._parts import Part, resolve
from pizza._plugins import Registry
from pizza.attribution import Attribution, Target
from pizza.completion import Completion, Generation
from pizza.errors import ConfigError
from pizza.specs import Choice

_SHOWN = 40


class Recorded:
    """What of an attribution's making is needed to ask the same question again.

    Args:
        attribution: The attribution.

    Raises:
        ConfigError: Its provenance does not say how it was made.
    """

    def __init__(self, attribution: Attribution) -> None:
        self._attribution = attribution
        made = attribution.provenance
        self._evidence = str(_of(made, "evidence"))
        self.identity = str(_of(made, "backend_identity"))
        self.seed = int(_of(made, "seed"))
        repeats = made.get("repeats")
        self.repeats = int(repeats) if isinstance(repeats, int) else None
        said = dict(_of(made, "generation"))
        if "stop" in said:
            said["stop"] = tuple(said["stop"])
        try:
            self.generation = Generation(**said)
        except TypeError as error:
            raise ConfigError(f"the attribution's way of generating is not known: {error}.") from (
                error
            )

    def perturbed_by(self, part: Part) -> bool:
        """Whether the attribution was made with this perturbation."""
        made = self._attribution.provenance.get("perturbation")
        return (
            isinstance(made, Mapping)
            and bool(part.origin[0])
            and made.get("name") == part.name
            and dict(made.get("options", {})) == dict(part.options)
        )

    def question(self, *, tokens: bool, scores: bool, same: bool) -> tuple[Target, str]:
        """The target and the evidence that ask for the attribution's own output.

        Args:
            tokens: Whether the metric compares log-probabilities.
            scores: Whether the model can score a given text.
            same: Whether it is the model that the attribution was made with.
        """
        target, output = self._attribution.target, self._attribution.output
        if target.kind != "completion":
            return target, "auto"
        written = self._evidence == "complete"
        if not tokens or not scores or (written and same):
            return target, "complete" if written else "auto"
        # The output is known: it is scored, and not asked for again.
        given = Target.given(output.text, span=target.span)
        return replace(given, token_ids=output.token_ids if same else None), "auto"

    def alike(self, output: Completion, *, scored: bool) -> bool:
        """Whether the reference and the kind of evidence are those of the attribution."""
        before = self._attribution.output
        return (
            self._evidence == ("score" if scored else "complete")
            and output.text == before.text
            and output.tokens == before.tokens
        )

    def doubts(
        self, context: Context, output: Completion, scores: NDArray[np.float64]
    ) -> tuple[str, ...]:
        """What a reader of the figures should know about what was compared with what."""
        made, found = self._attribution.provenance, []
        if context.backend.identity != self.identity:
            found.append(
                f"measured on {context.backend.name}; the attribution was made with "
                f"{made.get('backend', self.identity)}."
            )
        if output.text != self._attribution.output.text:
            found.append(
                f"the model answers {_shown(output.text)} here and not "
                f"{_shown(self._attribution.output.text)}: the figures say how well the scores "
                "explain that answer."
            )
        if made.get("signed") is False:
            found.append(
                "the scores say how strongly the output reacts and not in which direction: sums of "
                "them (lds, infidelity, completeness-error) mean little, rankings mean more."
            )
        if missing := int(np.isnan(scores).sum()):
            found.append(
                f"{missing} of {len(scores)} units have no score: they come last in every order "
                "and count as 0 in sums."
            )
        return tuple(found)


def recorded_metric(registry: Registry, attribution: Attribution) -> Part | None:
    """The metric of the attribution's first scores; ``None`` for looks inside the model.

    Raises:
        ConfigError: It was an object, which a result cannot hold.
    """
    made = attribution.provenance.get("metrics") or ()
    parts = [_again(registry, "metric", entry, "metric") for entry in made if _named(entry)]
    for part in parts:
        if part.label == attribution.metric:
            return part
    if made:
        raise ConfigError(
            f"the attribution was made with the metric {attribution.metric!r}, which cannot be "
            "made again from its name. Name one: metric='logprob-diff'."
        )
    return None


def recorded_perturbation(registry: Registry, attribution: Attribution) -> Part:
    """The perturbation of the attribution; ``delete`` for looks inside the model.

    Raises:
        ConfigError: It was an object, which a result cannot hold.
    """
    made = attribution.provenance.get("perturbation")
    if made is None:
        return resolve(registry, "perturbation", "delete")
    return _again(registry, "perturbation", made, "perturbation")


def _named(entry: Any) -> bool:
    return isinstance(entry, Mapping) and bool(entry.get("plugin"))


def _again(registry: Registry, kind: Any, entry: Any, option: str) -> Part:
    if not _named(entry):
        name = entry.get("name") if isinstance(entry, Mapping) else entry
        raise ConfigError(
            f"the attribution was made with the {kind} {name!r}, an object that a result cannot "
            f"hold. Give it (or another one) again: {option}=..."
        )
    return resolve(registry, kind, Choice(str(entry["name"]), **dict(entry.get("options", {}))))


def _of(made: Mapping[str, Any], name: str) -> Any:
    if name not in made:
        raise ConfigError(
            f"the attribution does not say how it was made: its provenance has no {name!r}. Make "
            "it again with this version of pizza."
        )
    return made[name]


def _shown(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")
