# SPDX-License-Identifier: Apache-2.0
"""What to try next: commands that work as they are printed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pizza.cli.order import Order
from pizza.specs import BackendSpec, MetricSpec

if TYPE_CHECKING:
    from pizza._plugins import Registry
    from pizza.attribution import Attribution
    from pizza.prompt import Prompt

_MOST = 3
_LONGEST_PROMPT = 200
_MANY_UNITS = 60
_BUDGET = 64


def suggestions(
    order: Order, prompt: Prompt, attribution: Attribution, registry: Registry
) -> list[tuple[str, str]]:
    """Up to three things to try: what for, and the command.

    Only parts that are installed, that this model can do and that were not used already.
    """
    n_units = len(attribution.units)
    inside = attribution.provenance.get("evidence") == "internals"
    found: list[tuple[str, list[str]]] = []
    if inside:
        found.append(
            ("Check it by leaving units out:", ["--method", "leave-one-out"]),
        )
        if "integrated-gradients" in registry.names("method") and not _named(order, "integrated"):
            found.append(
                ("Scores that add up, with a direction:", ["--method", "integrated-gradients"])
            )
    alone = order.method is None and order.budget is None
    if alone and n_units > 1 and "auto" in registry.names("method"):
        said = "Evidence that stands twice is found as well, and how sure each score is:"
        if n_units > _MANY_UNITS:
            said = "The strong parts with fewer calls, and how sure each score is:"
        found.append((said, ["--budget", str(_BUDGET)]))
    scored = attribution.provenance.get("evidence") == "score"
    if scored and attribution.target.kind == "completion":
        found.append(("See what the model writes without each unit:", ["--evidence", "complete"]))
    if further := _further_metrics(order, attribution, registry):
        said = "More measures of the same answers, which the cache still has:"
        if order.no_cache:
            said = "Several measures of the same answers:"
        found.append((said, [a for name in further for a in ("--metric", name)]))
    if not inside and order.units == "word" and _sentences(prompt) > 1:
        found.append(("Sentence by sentence, with fewer calls:", ["--units", "sentence"]))
    if not inside and order.perturbation == "delete" and "fixed" in registry.names("perturbation"):
        found.append(
            ("Replace each unit instead of deleting it:", ["--perturbation", "fixed:text=_"])
        )
    if alone and n_units > 3 and "sliding-window" in registry.names("method"):
        found.append(("Three neighbours at a time:", ["--method", "sliding-window:size=3"]))
    found.append(("Keep the result as JSON:", ["--output", "attribution.json"]))
    if other := _other_model(order, registry):
        found.insert(1, ("The same question to another model:", ["--model", other]))
    commands = [(why, _command(order, added)) for why, added in found]
    if order.output is not None and order.base_url is None and not order.backend_options:
        said = "How faithful the scores are, on fresh calls:"
        commands.insert(0, (said, shlex.join([*_program(), "evaluate", str(order.output)])))
    return commands[:_MOST]


def _named(order: Order, part: str) -> bool:
    return order.method is not None and part in order.method


def _further_metrics(order: Order, attribution: Attribution, registry: Registry) -> list[str]:
    """Another metric that needs nothing the ones in use do not need."""
    used = set(attribution.metrics)
    first = attribution.metric.partition(":")[0]
    specs = {s.name: s for s in registry.specs("metric") if isinstance(s, MetricSpec)}
    own = specs.get(first)
    if own is None or len(used) > 1:
        return []
    alike = [
        name
        for name in ("logprob-diff", "prob-diff", "edit-distance", "rouge-l", "jaccard")
        if name in specs
        and name not in used
        and specs[name].evidence == own.evidence
        and specs[name].requires <= own.requires
    ]
    return [attribution.metric, *alike[:1]] if alike else []


def _other_model(order: Order, registry: Registry) -> str:
    """A backend with a default model whose key is there, when the embedded model was used."""
    if order.model.partition(":")[0] != "embedded":
        return ""
    for spec in registry.specs("backend"):
        if (
            isinstance(spec, BackendSpec)
            and spec.key_variable
            and os.environ.get(spec.key_variable)
            and spec.default_model
            and not registry.missing(spec)
        ):
            return f"{spec.name}:{spec.default_model}"
    return ""


def _sentences(prompt: Prompt) -> int:
    text = prompt.text
    return sum(text.count(mark) for mark in (". ", "? ", "! ", "\n")) + 1


def _command(order: Order, added: Sequence[str]) -> str:
    """The same command with other options; the ones that were given are kept."""
    prompt = _prompt_arguments(order)
    if prompt is None:
        return f"the same command with {shlex.join(added)}"
    replaced = {added[i] for i in range(0, len(added), 2)}
    kept = [a for a in _given(order) if a[0] not in replaced]
    flat = [word for pair in kept for word in pair]
    return shlex.join([*_program(), "attribute", *flat, *added, *prompt])


def _program() -> list[str]:
    """How this program was called: it may be in an environment that is not activated."""
    called = Path(sys.argv[0])
    if called == Path(__file__).with_name("__main__.py"):
        return [sys.executable, "-m", "pizza.cli"]
    found = shutil.which("pizza")
    if called.stem != "pizza" or (found and called.exists() and called.samefile(found)):
        return ["pizza"]
    return [sys.argv[0]]


def _given(order: Order) -> list[tuple[str, ...]]:
    """The options that differ from their defaults."""
    single: tuple[tuple[str, object, object], ...] = (
        ("--model", order.model, "embedded"),
        ("--base-url", order.base_url, None),
        ("--api-key-env", order.api_key_env, None),
        ("--max-tokens", order.max_tokens, 64),
        ("--temperature", order.temperature, 0.0),
        ("--seed", order.seed, 0),
        ("--units", order.units, "word"),
        ("--method", order.method, None),
        ("--budget", order.budget, None),
        ("--repeats", order.repeats, None),
        ("--perturbation", order.perturbation, "delete"),
        ("--target", order.target, None),
        ("--contrast", order.contrast, None),
        ("--span", order.span, None),
        ("--evidence", order.evidence, "auto"),
        ("--rpm", order.rpm, None),
        ("--tpm", order.tpm, None),
        ("--concurrency", order.concurrency, None),
        ("--attempts", order.attempts, 6),
        ("--timeout", order.timeout, 120.0),
        ("--max-calls", order.max_calls, None),
        ("--max-total-tokens", order.max_total_tokens, None),
        ("--max-cost", order.max_cost, None),
    )
    given: list[tuple[str, ...]] = [(n, str(v)) for n, v, default in single if v != default]
    for name, values in (
        ("--metric", order.metrics),
        ("--backend-option", order.backend_options),
        ("--fix", order.source.fix),
        ("--fix-role", order.source.fix_roles),
    ):
        given += [(name, value) for value in values]
    if order.cache is not None and "PIZZA_CACHE" not in os.environ:
        given.append(("--cache", str(order.cache)))
    for name, wanted in (
        ("--no-cache", order.no_cache),
        ("--perturb-marks", order.source.perturb_marks),
        ("--skip-failures", order.skip_failures),
    ):
        if wanted:
            given.append((name,))
    return given


def _prompt_arguments(order: Order) -> list[str] | None:
    """The arguments that give the same prompt; ``None`` when it is long or came by a pipe."""
    source = order.source
    if source.messages is not None:
        return None if str(source.messages) == "-" else ["--messages", str(source.messages)]
    if source.file is not None:
        return None if str(source.file) == "-" else ["--file", str(source.file)]
    text = source.argument
    if text is None or text == "-" or len(text) > _LONGEST_PROMPT:
        return None
    return ["--", text] if text.startswith("-") else [text]
