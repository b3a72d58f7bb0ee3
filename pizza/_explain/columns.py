# SPDX-License-Identifier: Apache-2.0
"""The values that methods compute with, from kept answers or from effects that are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pizza._explain.compared import Effects, Policy, effects
from pizza._explain.noise import _moments as moments
from pizza._explain.sides import Explained
from pizza._parts import resolve_metrics
from pizza._plugins import Registry
from pizza.abc import Resources, Tokenizer, TokenTable
from pizza.attribution import Attribution
from pizza.errors import CapabilityError, EncodingUnavailableError
from pizza.noise import Noise
from pizza.specs import Choice

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """What methods compute with.

    Attributes:
        labels: The metrics' labels.
        metrics: The same for the provenance.
        effects: Per metric ``(n, n_rows)``.
        noise: Floor and spread per metric, or ``None``.
        warnings: What was left out.
    """

    labels: tuple[str, ...]
    metrics: tuple[Mapping[str, Any], ...]
    effects: tuple[Floats, ...]
    noise: Noise | None
    warnings: tuple[str, ...] = ()

    @property
    def values(self) -> Floats:
        """``v(S) = floor - effect(S)``, ``(n, n_columns)``."""
        noise = self.noise
        floors = [
            0.0 if noise is None else np.nan_to_num(noise.floor[label]) for label in self.labels
        ]
        return np.hstack([f - e for f, e in zip(floors, self.effects, strict=True)]) + 0.0


def columns(
    attribution: Attribution,
    registry: Registry,
    metrics: Any,
    wanted: Explained,
    *,
    seed: int,
    on_incomparable: Policy,
) -> Columns:
    """Effects by metrics: those that are known, and others from the kept answers.

    Args:
        attribution: Whose answers.
        registry: Where metrics are found.
        metrics: As `Attribution.reanalyze` takes them.
        wanted: What is explained.
        seed: Seed of everything random.
        on_incomparable: ``"raise"`` or ``"skip"``.

    Raises:
        ConfigError, IncomparableError: The answers do not hold this.
    """
    stored = attribution.evaluations.effects
    said = attribution.provenance.get("metrics") or ()
    if metrics is None and wanted.same:
        return Columns(
            labels=tuple(stored),
            metrics=tuple(said),
            effects=tuple(stored.values()),
            noise=attribution.noise,
        )
    named = [Choice(m["name"], **m["options"]) for m in said] if metrics is None else metrics
    parts = resolve_metrics(registry, named)
    lent = _resources(attribution, seed)
    found: dict[str, Effects] = {}
    for part in parts:
        # What has an origin came by name, and a name with its options means what it meant.
        if wanted.same and part.label in stored and any(part.origin):
            found[part.label] = Effects(values=stored[part.label])
            continue
        part.value.prepare(lent)
        found[part.label] = effects(
            part, wanted, attribution.evaluations.coalitions, on_incomparable
        )
    noise, told = _noise(attribution.noise, found)
    return Columns(
        labels=tuple(found),
        metrics=tuple(part.to_dict() for part in parts),
        effects=tuple(made.values for made in found.values()),
        noise=noise,
        warnings=tuple(text for text in (*(m.warning for m in found.values()), told) if text),
    )


def _noise(known: Noise | None, found: Mapping[str, Effects]) -> tuple[Noise | None, str]:
    """The noise of these metrics, and what is not known of it."""
    if known is None:
        return None, ""
    floor, sigma, lacking = {}, {}, []
    for label, made in found.items():
        if made.further is None:
            if label not in known.floor:
                lacking.append(label)
            nothing = np.zeros(made.values.shape[1])
            floor[label] = known.floor.get(label, nothing)
            sigma[label] = known.sigma.get(label, nothing)
        else:
            floor[label], sigma[label] = moments(made.further)
    told = (
        f"the model's answers vary, and the further answers that tell by how much were not kept: "
        f"no noise is taken off the scores of {', '.join(lacking)}."
        if lacking and known.varies
        else ""
    )
    tested = {
        label: known.p_values[label]
        for label, made in found.items()
        if made.further is None and label in known.p_values
    }
    return replace(known, floor=floor, sigma=sigma, p_values=tested), told


def _resources(attribution: Attribution, seed: int) -> Resources:
    told = attribution.provenance

    def tokenizer() -> Tokenizer:
        from pizza import tokenizers

        backend = str(told.get("backend", ""))
        name = told.get("tokenizer") or backend.partition(":")[2] or backend
        if not (tokenizers.is_known(name) and tokenizers.is_cached(name)):
            raise EncodingUnavailableError(
                f"the tokenizer {name!r} of this run is not on this machine, and a reanalysis "
                "opens no model that could have it. Use a metric that needs none."
            )
        return tokenizers.encoding_for(name)

    def token_table() -> TokenTable:
        raise CapabilityError(
            "the metric needs the embeddings of the model, and a reanalysis opens no model. Give "
            "it a table of its own, e.g. pizza.Choice('cosine', table=...).",
            needed="embeddings",
            backend=str(told.get("backend", "")),
        )

    return Resources(tokenizer=tokenizer, token_table=token_table, seed=seed)
