# SPDX-License-Identifier: Apache-2.0
"""From what the user named to ready parts, with everything checked before money is spent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pizza._plugins import Kind, Registry
from pizza.abc import Backend, InternalsMethod, Method, Metric, PerturbationStrategy, Segmenter
from pizza.capability import Capability
from pizza.errors import CapabilityError, ConfigError, PluginContractError
from pizza.prompt import Unit
from pizza.specs import Choice, MetricSpec, Spec, parse_choice

_BASES: dict[Kind, tuple[type[Any], ...]] = {
    "backend": (Backend,),
    "metric": (Metric,),
    "method": (Method, InternalsMethod),
    "perturbation": (PerturbationStrategy,),
    "segmenter": (Segmenter,),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """A ready part and where it came from.

    Attributes:
        kind: What kind of part.
        name: Its registry name, or its class's name when the user gave an object.
        value: The object.
        options: The options it was made with.
        requires: Capabilities that it needs.
        evidence: For metrics: ``"tokens"`` or ``"text"``.
        origin: ``(plugin, distribution, version)``.
    """

    kind: Kind
    name: str
    value: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    requires: frozenset[Capability] = frozenset()
    evidence: str = "text"
    origin: tuple[str, str, str] = ("", "", "")

    @property
    def label(self) -> str:
        """The name, with the options when there are any: unique among several of one name."""
        if not self.options:
            return self.name
        inner = ",".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}:{inner}"

    def to_dict(self) -> dict[str, Any]:
        """For the provenance."""
        plugin, distribution, version = self.origin
        return {
            "name": self.name,
            "options": dict(self.options),
            "plugin": plugin,
            "distribution": distribution,
            "version": version,
        }


def resolve(registry: Registry, kind: Kind, value: Any) -> Part:
    """A part from a name, ``name:option=value``, a `Choice`, or a ready object.

    Raises:
        UnknownNameError, PluginError: As `Registry.load` raises them.
        ConfigError: The options do not fit, or the value is of the wrong type.
    """
    bases = _BASES[kind]
    if isinstance(value, bases):
        return Part(
            kind=kind,
            name=_kebab(type(value).__name__),
            value=value,
            requires=getattr(value, "requires", frozenset()),
            evidence=getattr(value, "evidence", "text"),
        )
    if isinstance(value, str):
        value = parse_choice(value)
    if not isinstance(value, Choice):
        raise ConfigError(
            f"a {kind} is a name, a pizza.Choice or a {bases[0].__name__} object, not {value!r}."
        )
    spec = registry.spec(kind, value.name)
    made = registry.create(kind, value.name, dict(value.options))
    info = registry.owner(kind, value.name)
    if not isinstance(made, bases):
        raise PluginContractError(
            f"the {kind} {value.name!r} of {info.origin} is {type(made).__name__}, which is not a "
            f"pizza.abc.{bases[0].__name__}."
        )
    return Part(
        kind=kind,
        name=value.name,
        value=made,
        options=value.options,
        # Options may change what a part needs (a table of one's own instead of the model's).
        requires=getattr(made, "requires", spec.requires),
        evidence=spec.evidence if isinstance(spec, MetricSpec) else "text",
        origin=(info.name, info.distribution, info.version),
    )


def resolve_units(registry: Registry, value: Any) -> Part:
    """A segmenter from a name, a `Choice`, an object, or a list of spans or units."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        spans = [(u.message, u.start, u.end, u.label) if isinstance(u, Unit) else u for u in value]
        return resolve(registry, "segmenter", Choice("spans", spans=spans))
    return resolve(registry, "segmenter", value)


def resolve_metrics(registry: Registry, value: Any) -> tuple[Part, ...]:
    """One or several metrics; refuses the same one twice."""
    values = [value] if isinstance(value, (str, Choice, Metric)) else list(value)
    if not values:
        raise ConfigError("no metric was named: give at least one, e.g. metrics=['logprob-diff'].")
    parts = tuple(resolve(registry, "metric", v) for v in values)
    labels = [part.label for part in parts]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigError(f"the metric {twice[0]!r} was named twice.")
    return parts


def require(registry: Registry, part: Part, capabilities: frozenset[Capability], who: str) -> None:
    """Check that the backend can do what a part needs.

    Raises:
        CapabilityError: It cannot; parts of the same kind that would work are named.
    """
    lacking = sorted(part.requires - capabilities)
    if not lacking:
        return
    works = [spec.name for spec in registry.specs(part.kind) if spec.requires <= capabilities]
    offers = ", ".join(sorted(capabilities)) or "nothing"
    advice = f" With this model these work: {', '.join(works)}." if works else ""
    others = _backends_with(registry, part.requires)
    elsewhere = f" Backends that may offer it: {', '.join(others)}." if others else ""
    raise CapabilityError(
        f"the {part.kind} {part.name!r} needs {', '.join(lacking)}, and {who} offers only "
        f"{offers}.{advice}{elsewhere}",
        needed=lacking[0],
        backend=who,
        alternatives=works,
    )


def _backends_with(registry: Registry, needed: frozenset[Capability]) -> list[str]:
    offers = cast("Callable[[Spec], frozenset[Capability]]", lambda s: getattr(s, "offers", ()))
    return [spec.name for spec in registry.specs("backend") if needed <= frozenset(offers(spec))]


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
