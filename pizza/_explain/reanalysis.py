# SPDX-License-Identifier: Apache-2.0
"""Other scores from the answers of a run: another metric, target or method, and no request.

There is no backend in here: nothing could be sent.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pizza import __version__
from pizza._explain.columns import columns
from pizza._explain.compared import Policy
from pizza._explain.conclude import Conclusion, Run
from pizza._explain.sides import Explained, explained
from pizza._parts import Part, resolve
from pizza._plugins import Registry
from pizza.abc import Method
from pizza.attribution import Attribution, Evaluations, MetricScores, Target
from pizza.completion import Usage
from pizza.errors import ConfigError, UnknownNameError
from pizza.evidence import Answers
from pizza.specs import Choice


def reanalyze(
    attribution: Attribution,
    *,
    metrics: Any,
    target: Target | str | None,
    span: tuple[int, int] | None,
    method: Any,
    seed: int | None,
    on_incomparable: Policy,
    plugins: Sequence[Any],
    discover: bool,
) -> Attribution:
    """See `Attribution.reanalyze`."""
    if on_incomparable not in get_args(Policy):
        raise ConfigError(f"on_incomparable is 'raise' or 'skip', not {on_incomparable!r}.")
    told = _told(attribution)
    if told.get("evidence") == "internals" or not len(attribution.evaluations):
        raise ConfigError(
            "this attribution was made by looking inside the model (or without measuring "
            "anything): there are no answers to analyze again. Explain the prompt with a method "
            "that perturbs it, e.g. 'leave-one-out'."
        )
    registry = Registry(plugins, discover=discover)
    seed = int(told.get("seed") or 0) if seed is None else seed
    wanted = explained(attribution, target, span)
    run = Run(
        attribution=attribution,
        registry=registry,
        method=_method(registry, told, method),
        columns=columns(
            attribution, registry, metrics, wanted, seed=seed, on_incomparable=on_incomparable
        ),
        seed=seed,
    )
    return _result(run, wanted, run.own() if method is None else run.named())


def _told(attribution: Attribution) -> Mapping[str, Any]:
    """The provenance; of a file, it may be anything.

    Raises:
        ConfigError: It does not say what it should in the way it should.
    """
    told = attribution.provenance
    try:
        for part in (*(told.get("metrics") or ()), *filter(None, [told.get("method")])):
            Choice(part["name"], **part["options"])
        if before := told.get("reanalysis"):
            Target.from_dict(before["of"]["target"])
        int(told.get("seed") or 0)
    except (KeyError, TypeError, AttributeError, ValueError, ConfigError) as error:
        raise ConfigError(
            f"the provenance of this attribution is damaged, so it cannot be analyzed again: "
            f"{error!r}."
        ) from error
    return told


def _method(registry: Registry, told: Mapping[str, Any], method: Any) -> Part:
    if method is not None:
        part = resolve(registry, "method", method)
    else:
        said = told.get("method") or {}
        if not said.get("name"):
            raise ConfigError("the attribution does not say how it was made: name a method.")
        try:
            part = resolve(registry, "method", Choice(said["name"], **said["options"]))
        except UnknownNameError as error:
            raise ConfigError(
                f"the run's method {said['name']!r} is not installed, or was an object of its "
                f"caller: name one with method=. {error}"
            ) from error
    if not isinstance(part.value, Method):
        raise ConfigError(
            f"{part.name!r} looks inside the model, and a reanalysis opens no model. Name a method "
            "that perturbs the prompt."
        )
    return part


# --- the result -------------------------------------------------------------------------------


def _result(run: Run, wanted: Explained, conclusion: Conclusion) -> Attribution:
    old, found, scores = run.attribution, run.columns, conclusion.scores
    n_rows = 1 + len(wanted.output.tokens)

    def rows(array: Any, index: int) -> Any:
        return None if array is None else array[index * n_rows : (index + 1) * n_rows]

    return Attribution(
        prompt=old.prompt,
        units=old.units,
        target=wanted.target,
        output=wanted.output,
        results=tuple(
            MetricScores(
                metric=label,
                scores=rows(scores.values, i) + 0.0,
                standard_errors=rows(scores.standard_errors, i),
            )
            for i, label in enumerate(found.labels)
        ),
        evaluations=Evaluations(
            coalitions=old.evaluations.coalitions,
            effects=dict(zip(found.labels, found.effects, strict=True)),
            answers=Answers(tuple(old.evaluations.answers), old.evaluations.evidence),
        ),
        usage=Usage(),
        cost=0.0,
        provenance=_provenance(run, wanted, conclusion),
        noise=found.noise,
        warnings=(*found.warnings, *scores.warnings),
    )


def _provenance(run: Run, wanted: Explained, conclusion: Conclusion) -> dict[str, Any]:
    old = run.attribution
    told = dict(old.provenance)
    # Of the run, not of this: the model computed nothing.
    told.pop("work", None)
    origin = told.get("reanalysis", {}).get("of") or {
        "created_at": told.get("created_at"),
        "pizza_version": told.get("pizza_version"),
        "method": _brief(told.get("method")),
        "metrics": [_brief(metric) for metric in told.get("metrics") or ()],
        "target": old.target.to_dict(),
        "seed": told.get("seed"),
        "calls": old.calls,
        "cache_hits": old.cache_hits,
    }
    new = {
        "method": {**run.method.to_dict(), "details": dict(conclusion.scores.details)},
        "metrics": [dict(metric) for metric in run.columns.metrics],
        "seed": run.seed,
    }
    before = [_brief(metric) for metric in told.get("metrics") or ()]
    changed = {
        "metrics": [_brief(metric) for metric in run.columns.metrics] != before,
        "target": not wanted.same,
        "method": _brief(run.method.to_dict()) != _brief(told.get("method")),
        "seed": run.seed != (told.get("seed") or 0),
    }
    return {
        **told,
        **new,
        "pizza_version": __version__,
        "created_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "evidence": wanted.evidence or told.get("evidence"),
        "reanalysis": {
            "of": origin,
            "changed": [name for name, is_new in changed.items() if is_new],
            "how": conclusion.how,
            "position": wanted.position,
        },
    }


def _brief(part: Mapping[str, Any] | None) -> dict[str, Any]:
    """A part without where it came from."""
    return {"name": part.get("name"), "options": part.get("options")} if part else {}
