# SPDX-License-Identifier: Apache-2.0
"""`Faithfulness`: one measure of an attribution. `Evaluation`: all of them and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pizza._files import read_json, write_json
from pizza.completion import Usage
from pizza.errors import ConfigError, ResultFormatError

SCHEMA = "pizza.evaluation"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Faithfulness:
    """What one measure says of an attribution.

    Attributes:
        measure: Its name, with its options when it has any.
        value: The figure; NaN = not defined here.
        scale: What the figure counts, e.g. ``"nats"`` or ``"rank correlation"``.
        higher_is_better: Which way is more faithful.
        standard_error: Of the figure over the coalitions that could have been drawn, or ``None``
            where there is no honest one.
        random: The mean of the same figure for random orders (or shuffled scores): what no
            knowledge gives. ``None`` = the budget had no room for it, or it means nothing.
        details: Curves and further figures, plain JSON values. ``None`` in them = not defined.
        warnings: What a reader of the figure should know.
    """

    measure: str
    value: float
    scale: str
    higher_is_better: bool
    standard_error: float | None = None
    random: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the inverse of `from_dict`."""
        return {
            "measure": self.measure,
            "value": _plain(self.value),
            "scale": self.scale,
            "higher_is_better": self.higher_is_better,
            "standard_error": _plain(self.standard_error),
            "random": _plain(self.random),
            "details": _plain(self.details),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Faithfulness:
        """The inverse of `to_dict`."""
        error, control = data["standard_error"], data["random"]
        return cls(
            measure=str(data["measure"]),
            value=_number(data["value"]),
            scale=str(data["scale"]),
            higher_is_better=bool(data["higher_is_better"]),
            standard_error=None if error is None else _number(error),
            random=None if control is None else _number(control),
            details=dict(data["details"]),
            warnings=tuple(map(str, data["warnings"])),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """How faithful an attribution is to a model.

    Attributes:
        results: One entry per measure, in the order that they were asked for.
        metric: What was measured of every coalition; the scores are of it, too, where the
            attribution has scores of it.
        n_units: Units of the attribution.
        output_token: The output token whose scores were evaluated, or ``None`` = whole output.
        calls: Requests that were sent to the model, retries included.
        cache_hits: Answers that came from the cache.
        usage: Tokens that were paid for.
        cost: US dollars, or ``None`` when the price is not known.
        provenance: Backend, perturbation, metric, seed, and how the attribution was made. Plain
            JSON values.
        warnings: What a reader of the figures should know.
    """

    results: tuple[Faithfulness, ...]
    metric: str
    n_units: int
    output_token: int | None = None
    calls: int = 0
    cache_hits: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of the measures."""
        return tuple(result.measure for result in self.results)

    def __getitem__(self, measure: str) -> Faithfulness:
        for result in self.results:
            if result.measure == measure:
                return result
        raise ConfigError(
            f"this evaluation has no measure {measure!r}; it has {', '.join(self.measures)}."
        )

    # --- saving -------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values with a schema version; the inverse of `from_dict`."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "results": [result.to_dict() for result in self.results],
            "metric": self.metric,
            "n_units": self.n_units,
            "output_token": self.output_token,
            "calls": self.calls,
            "cache_hits": self.cache_hits,
            "usage": [self.usage.prompt_tokens, self.usage.completion_tokens],
            "cost": self.cost,
            "provenance": _plain(self.provenance),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evaluation:
        """The inverse of `to_dict`.

        Raises:
            ResultFormatError: The data is not an evaluation, is of a newer schema, or is damaged.
        """
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
            raise ResultFormatError(f"this is not a saved evaluation: no schema {SCHEMA!r}.")
        version = data.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ResultFormatError(
                f"the evaluation has schema version {version!r}; this pizza reads "
                f"{SCHEMA_VERSION}. Upgrade: pip install -U pizza-attribution."
            )
        try:
            token, cost = data["output_token"], data["cost"]
            return cls(
                results=tuple(Faithfulness.from_dict(result) for result in data["results"]),
                metric=str(data["metric"]),
                n_units=int(data["n_units"]),
                output_token=None if token is None else int(token),
                calls=int(data["calls"]),
                cache_hits=int(data["cache_hits"]),
                usage=Usage(prompt_tokens=data["usage"][0], completion_tokens=data["usage"][1]),
                cost=None if cost is None else float(cost),
                provenance=dict(data["provenance"]),
                warnings=tuple(map(str, data["warnings"])),
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ResultFormatError(f"the saved evaluation is damaged: {error!r}.") from error

    def save(self, path: str | Path) -> None:
        """Write as a JSON file, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read what `save` wrote.

        Raises:
            ResultFormatError: The file is no evaluation.
        """
        return cls.from_dict(read_json(path, "evaluation"))


def _plain(value: Any) -> Any:
    """JSON values: mappings to dicts, tuples to lists, NaN to null, infinities to their names."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def _number(value: float | str | None) -> float:
    return math.nan if value is None else float(value)
