# SPDX-License-Identifier: Apache-2.0
"""`Attribution`: the result."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pizza._certainty import holm, quantile
from pizza._files import MAX_FILE_BYTES, read_json, write_json
from pizza._jsonable import array, numbers, plain
from pizza.completion import Completion, Usage, frozen_array
from pizza.errors import ConfigError, ResultFormatError
from pizza.evidence import Answers, Evidence
from pizza.noise import Noise
from pizza.prompt import Prompt, Unit
from pizza.target import Target

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = [
    "MAX_FILE_BYTES",
    "SCHEMA",
    "SCHEMA_VERSION",
    "Attribution",
    "Evaluations",
    "MetricScores",
    "Target",
]

SCHEMA = "pizza.attribution"
SCHEMA_VERSION = 2
_WITHOUT_EVIDENCE = (
    "saved by an older pizza (schema version 1), which kept no answers: what is not in the file "
    "(other metrics, spans, contrasts) needs a new run."
)
MAX_COMPARED = 2000
"""Units up to which all are compared with all: the table has a place for each pair."""
_DAMAGED = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
    ConfigError,
)
"""What reading damaged or hostile data ends in."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MetricScores:
    """The scores under one metric.

    Attributes:
        metric: The metric's name (with its options when there are several of that name).
        scores: ``(1 + n_output_tokens, n_units)``; row 0 = whole output. Positive = the unit
            supported the output. NaN = not defined. Read-only.
        standard_errors: Same shape, or ``None``.
    """

    metric: str
    scores: NDArray[np.float64]
    standard_errors: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", frozen_array(self.scores))
        if self.standard_errors is not None:
            object.__setattr__(self, "standard_errors", frozen_array(self.standard_errors))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluations:
    """What was measured: the evidence behind the scores.

    Attributes:
        coalitions: ``(n, n_units)`` bool, True = the unit was present. Read-only.
        effects: Per metric ``(n, 1 + n_output_tokens)``. Read-only.
        answers: What the model wrote for each coalition; ``None`` where the target was scored.
            `Answers` carry the evidence, too.
    """

    coalitions: NDArray[np.bool_]
    effects: Mapping[str, NDArray[np.float64]]
    answers: Sequence[str | None]

    def __post_init__(self) -> None:
        object.__setattr__(self, "coalitions", frozen_array(self.coalitions, dtype=bool))
        frozen = {name: frozen_array(values) for name, values in self.effects.items()}
        object.__setattr__(self, "effects", MappingProxyType(frozen))

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def unanswered(self) -> int:
        """Coalitions whose effects are not known: refused by the model, or beyond the budget."""
        known = [np.isfinite(values[:, 0]) for values in self.effects.values() if len(values)]
        return int((~np.any(known, axis=0)).sum()) if known else 0

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """What was asked about every coalition, with all answers; empty when none were kept."""
        return self.answers.evidence if isinstance(self.answers, Answers) else ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attribution:
    """How much each unit of the prompt supported the output.

    Attributes:
        prompt: The prompt that was explained; ``prompt.fixed`` says which parts were not perturbed
            and why.
        units: The units, ``n_units`` of them, in order.
        target: What was explained.
        output: The reference output; its tokens are the rows from 1 on.
        results: One entry per metric; the first is the one that `scores` shows.
        evaluations: What was measured.
        calls: Requests that were sent to the model for this attribution, retries included.
        cache_hits: Answers that came from the cache.
        usage: Tokens that were paid for.
        cost: US dollars, or ``None`` when the price is not known.
        provenance: Everything needed to make it again: backend, model, method, options, seed,
            plugins with their versions. Plain JSON values.
        noise: How much the model's answers to one prompt differ, where that was measured.
        warnings: What a reader of the scores should know.
    """

    prompt: Prompt
    units: tuple[Unit, ...]
    target: Target
    output: Completion
    results: tuple[MetricScores, ...]
    evaluations: Evaluations
    calls: int = 0
    cache_hits: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    noise: Noise | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.results:
            raise ConfigError("an attribution needs the scores of at least one metric.")
        shape = (1 + len(self.output.tokens), len(self.units))
        for result in self.results:
            if result.scores.shape != shape:
                raise ConfigError(
                    f"the scores of {result.metric!r} have shape {result.scores.shape}; "
                    f"(1 + output tokens, units) is {shape}."
                )

    # --- reading it ---------------------------------------------------------------------------

    @property
    def scores(self) -> NDArray[np.float64]:
        """``(1 + n_output_tokens, n_units)`` of the first metric; row 0 = whole output."""
        return self.results[0].scores

    @property
    def standard_errors(self) -> NDArray[np.float64] | None:
        """Standard errors of `scores`, or ``None``."""
        return self.results[0].standard_errors

    @property
    def metric(self) -> str:
        """The first metric's name."""
        return self.results[0].metric

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all metrics."""
        return tuple(result.metric for result in self.results)

    @property
    def output_tokens(self) -> tuple[str, ...]:
        """The texts of the output tokens."""
        return self.output.tokens

    @property
    def unit_scores(self) -> NDArray[np.float64]:
        """``(n_units,)``: each unit's score for the whole output."""
        row: NDArray[np.float64] = self.scores[0]
        return row

    def for_metric(self, name: str) -> Attribution:
        """The same attribution with another of its metrics first."""
        for result in self.results:
            if result.metric == name:
                rest = tuple(r for r in self.results if r is not result)
                return replace(self, results=(result, *rest))
        raise ConfigError(
            f"this attribution has no metric {name!r}; it has {', '.join(self.metrics)}."
        )

    def top(self, k: int = 5) -> tuple[tuple[Unit, float], ...]:
        """The ``k`` units with the highest whole-output score, best first; NaN last."""
        order = np.argsort(-np.nan_to_num(self.unit_scores, nan=-np.inf), kind="stable")
        return tuple((self.units[i], float(self.unit_scores[i])) for i in order[:k])

    # --- how sure it is ------------------------------------------------------------------------

    def confidence_intervals(self, level: float = 0.9) -> NDArray[np.float64]:
        """Limits ``(2, 1 + n_output_tokens, n_units)`` that hold the true scores that often.

        ``scores -+ z * standard_errors``, normal; NaN where there are no standard errors. The
        level is of each interval by itself, not of all of them together.

        Raises:
            ConfigError: The level is not between 0 and 1.
        """
        z = quantile(level)
        errors = self.standard_errors
        half = np.full(self.scores.shape, np.nan) if errors is None else z * errors
        return np.stack([self.scores - half, self.scores + half])

    def differs_from_zero(self, level: float = 0.9) -> NDArray[np.bool_]:
        """Which units' whole-output scores are not 0, ``(n_units,)``.

        That *none* of the named ones is 0 holds with that probability: Holm's step-down procedure
        (Holm 1979) over the units. Without standard errors nothing differs.

        Raises:
            ConfigError: The level is not between 0 and 1.
        """
        errors = self.standard_errors
        if errors is None:
            quantile(level)
            return np.zeros(len(self.units), dtype=bool)
        return holm(self.unit_scores, errors[0], level)

    def differ(self, level: float = 0.9, *, unit: int | None = None) -> NDArray[np.bool_]:
        """Which pairs of units have different whole-output scores.

        As `differs_from_zero`, over all pairs that are compared. The two errors are taken as
        independent, which those of random coalitions nearly are.

        Args:
            level: Probability with which no such statement is wrong.
            unit: Compare this unit with the others, and not all with all.

        Returns:
            ``(n_units, n_units)``, or ``(n_units,)`` for one unit.

        Raises:
            ConfigError: The level is not between 0 and 1, there is no such unit, or there are too
                many units to compare all with all.
        """
        quantile(level)
        n, errors = len(self.units), self.standard_errors
        if unit is not None and not 0 <= unit < n:
            raise ConfigError(f"there is no unit {unit!r}: units are numbered 0 to {n - 1}.")
        if unit is None and n > MAX_COMPARED:
            raise ConfigError(
                f"{n} units are too many to compare all with all ({MAX_COMPARED} are not). Compare "
                "one with the others: differ(unit=...)."
            )
        result = np.zeros((n, n) if unit is None else n, dtype=bool)
        if errors is None:
            return result
        if unit is not None:
            others = np.flatnonzero(np.arange(n) != unit)
            gaps = self.unit_scores[unit] - self.unit_scores[others]
            result[others] = holm(gaps, np.hypot(errors[0, unit], errors[0, others]), level)
            return result
        first, second = np.triu_indices(n, 1)
        gaps = self.unit_scores[first] - self.unit_scores[second]
        result[first, second] = holm(gaps, np.hypot(errors[0, first], errors[0, second]), level)
        return result | result.T

    # --- asking it something else ---------------------------------------------------------------

    def reanalyze(
        self,
        *,
        metrics: Any = None,
        target: Target | str | None = None,
        span: tuple[int, int] | None = None,
        method: Any = None,
        seed: int | None = None,
        on_incomparable: Literal["raise", "skip"] = "raise",
        plugins: Sequence[Any] = (),
        discover: bool = True,
    ) -> Attribution:
        """Scores by another metric, target or method from the answers that were kept.

        Parts are given as in `Session.attribute`: by name, as ``"name:option=value"``, as a
        `Choice` or as an object. What is not given stays as it was.

        Args:
            metrics: One metric or several; the first one steers methods that adapt.
            target: A text that was scored, by itself; a contrast of two scored texts, also the
                other way round; or a contrast of two tokens that stood at one position of the
                output, from the alternatives there.
            span: Half-open code-point span of the output to limit the scores to. In a contrast of
                two tokens: their position, where there are several.
            method: An `Estimator` is applied to all coalitions that were measured. The plan of any
                other method, and by default of the run's own, is followed again.
            seed: Seed of everything random; by default the run's.
            on_incomparable: What becomes of answers that a metric cannot use: an error that names
                them, or ``"skip"``: NaN for these, and a warning.
            plugins: As for `Session`.
            discover: As for `Session`.

        Returns:
            An attribution with ``calls=0``. Its provenance says what it was made from.

        Raises:
            ConfigError: What was measured does not hold this; the message says what it does hold.
            IncomparableError: Answers lack what a metric needs.

        Cost: no request. It computes in the caller's thread: in an event loop use
        ``asyncio.to_thread`` when there are many coalitions.
        """
        # By name: what an attribution is does not depend on what can be done with one.
        work = importlib.import_module("pizza._explain.reanalysis")
        found: Attribution = work.reanalyze(
            self,
            metrics=metrics,
            target=target,
            span=span,
            method=method,
            seed=seed,
            on_incomparable=on_incomparable,
            plugins=plugins,
            discover=discover,
        )
        return found

    # --- passing it on --------------------------------------------------------------------------

    def to_pandas(self) -> pd.DataFrame:
        """A tidy frame: one row per metric, output token (-1 = whole output) and unit.

        Columns: ``metric, output_index, output_token, unit_index, unit, message, start, end,
        score, standard_error``. Needs pandas (``pip install 'pizza-attribution[pandas]'``).
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ConfigError(
                "to_pandas needs pandas: pip install 'pizza-attribution[pandas]'."
            ) from error
        n_rows, n_units = self.scores.shape
        frames = []
        for result in self.results:
            errors = result.standard_errors
            frames.append(
                pd.DataFrame(
                    {
                        "metric": result.metric,
                        "output_index": np.repeat(np.arange(n_rows) - 1, n_units),
                        "output_token": np.repeat(
                            np.array([None, *self.output.tokens], dtype=object), n_units
                        ),
                        "unit_index": np.tile(np.arange(n_units), n_rows),
                        "unit": [u.name for u in self.units] * n_rows,
                        "message": [u.message for u in self.units] * n_rows,
                        "start": [u.start for u in self.units] * n_rows,
                        "end": [u.end for u in self.units] * n_rows,
                        "score": result.scores.ravel(),
                        "standard_error": np.nan if errors is None else errors.ravel(),
                    }
                )
            )
        return pd.concat(frames, ignore_index=True)

    # --- saving -------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values with a schema version; the inverse of `from_dict`."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "prompt": self.prompt.to_dict(),
            "units": [[u.message, u.start, u.end, u.label] for u in self.units],
            "target": self.target.to_dict(),
            "output": self.output.to_dict(),
            "results": [
                {
                    "metric": r.metric,
                    "scores": numbers(r.scores),
                    "standard_errors": (
                        None if r.standard_errors is None else numbers(r.standard_errors)
                    ),
                }
                for r in self.results
            ],
            "evaluations": {
                "absent": [np.flatnonzero(~row).tolist() for row in self.evaluations.coalitions],
                "effects": {k: numbers(v) for k, v in self.evaluations.effects.items()},
                "answers": list(self.evaluations.answers),
                "evidence": [evidence.to_dict() for evidence in self.evaluations.evidence],
            },
            "calls": self.calls,
            "cache_hits": self.cache_hits,
            "usage": [self.usage.prompt_tokens, self.usage.completion_tokens],
            "cost": self.cost,
            "provenance": plain(self.provenance),
            "noise": None if self.noise is None else self.noise.to_dict(),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Attribution:
        """The inverse of `to_dict`; reads version 1 as well, which had no evidence.

        Raises:
            ResultFormatError: The data is not an attribution, is of a newer schema, or is damaged.
        """
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
            raise ResultFormatError(f"this is not a saved attribution: no schema {SCHEMA!r}.")
        version = data.get("schema_version")
        if version not in (1, SCHEMA_VERSION):
            raise ResultFormatError(
                f"the attribution has schema version {version!r}; this pizza reads 1 to "
                f"{SCHEMA_VERSION}. Upgrade: pip install -U pizza-attribution."
            )
        try:
            return cls(**_decoded(data, old=version == 1))
        except _DAMAGED as error:
            raise ResultFormatError(f"the saved attribution is damaged: {error!r}.") from error

    def save(self, path: str | Path) -> None:
        """Write as a JSON file, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Attribution:
        """Read what `save` wrote.

        Raises:
            ResultFormatError: The file is no attribution.
        """
        return cls.from_dict(read_json(path, "attribution"))


def _decoded(data: Mapping[str, Any], *, old: bool) -> dict[str, Any]:
    prompt = Prompt.from_dict(data["prompt"])
    units = tuple(prompt.unit(m, s, e, label) for m, s, e, label in data["units"])
    output = Completion.from_dict(data["output"])
    n_rows = 1 + len(output.tokens)
    evaluations = data["evaluations"]
    coalitions = np.ones((len(evaluations["absent"]), len(units)), dtype=bool)
    for row, absent in zip(coalitions, evaluations["absent"], strict=True):
        row[absent] = False
    texts = tuple(evaluations["answers"])
    kept = () if old else evaluations["evidence"]
    return {
        "prompt": prompt,
        "units": units,
        "target": Target.from_dict(data["target"]),
        "output": output,
        "results": tuple(
            MetricScores(
                metric=r["metric"],
                scores=array(r["scores"], len(units)),
                standard_errors=(
                    None
                    if r["standard_errors"] is None
                    else array(r["standard_errors"], len(units))
                ),
            )
            for r in data["results"]
        ),
        "evaluations": Evaluations(
            coalitions=coalitions,
            effects={k: array(v, n_rows) for k, v in evaluations["effects"].items()},
            answers=Answers(
                texts, tuple(Evidence.from_dict(evidence, len(coalitions)) for evidence in kept)
            ),
        ),
        "calls": int(data["calls"]),
        "cache_hits": int(data["cache_hits"]),
        "usage": Usage(prompt_tokens=data["usage"][0], completion_tokens=data["usage"][1]),
        "cost": data["cost"],
        "provenance": data["provenance"],
        "noise": Noise.from_dict(data["noise"]) if data.get("noise") else None,
        "warnings": (*data["warnings"], *((_WITHOUT_EVIDENCE,) if old else ())),
    }
