# SPDX-License-Identifier: Apache-2.0
"""How an attribution was measured, how sure it is and what it cost, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pizza.attribution import Attribution
from pizza.prompt import FixedSpan
from pizza.render import scale
from pizza.render.pieces import told_apart
from pizza.render.text import harmless, one_line, plural

if TYPE_CHECKING:
    from pizza.evaluation.result import Evaluation

LEVEL = 0.9
"""Confidence of what is said of scores."""


def facts(attribution: Attribution) -> list[tuple[str, str]]:
    """How it was measured and what it cost: label and sentence, harmless."""
    how = attribution.provenance
    units, method, strategy = (
        _name(how.get(key)) for key in ("segmenter", "method", "perturbation")
    )
    steps = f"{plural(len(attribution.units), 'unit')} ({units}), {method}"
    if how.get("perturbation", ...) is not None:
        steps += f" with {strategy}"
    evidence = {
        "score": "the output was scored with each changed prompt",
        "complete": "the model answered each changed prompt",
        "internals": "looked inside the model; nothing was perturbed",
    }.get(str(how.get("evidence")), "")
    rows = [
        ("Model", one_line(str(how.get("backend", attribution.output.model or "unknown")))),
        ("Measured", harmless(steps, keep_newlines=False)),
    ]
    if evidence:
        rows.append(("Evidence", evidence))
    rows.append(("Held fixed", _fixed(attribution)))
    rows += [
        (label, said)
        for label, said in (
            ("Sure", sureness(attribution)),
            ("Quality", _quality(how)),
            ("Noise", _noise(attribution)),
            ("Budget", _budget(how)),
        )
        if said
    ]
    rows.append(("Spent", spending(attribution)))
    return rows


def sureness(attribution: Attribution, level: float = LEVEL) -> str:
    """Which scores differ from zero and from one another, in words; "" where nothing says so."""
    if attribution.standard_errors is None:
        return ""
    differing = np.flatnonzero(attribution.differs_from_zero(level))
    n = len(attribution.units)
    verb = "differs" if len(differing) == 1 else "differ"
    said = f"{len(differing)} of {plural(n, 'unit')} {verb} from zero ({level:.0%} confidence)"
    order = np.argsort(-np.abs(np.nan_to_num(attribution.unit_scores)), kind="stable")
    if len(differing) == 0 or n < 2:
        return said
    first = int(order[0])
    apart = attribution.differ(level, unit=first) | ~attribution.differs_from_zero(level)
    alike = [int(i) for i in order[1:] if not apart[i]]
    names = told_apart(attribution.units, 24)
    if not alike:
        return f'{said}; "{names[first]}" is stronger than all others'
    others = ", ".join(f'"{names[i]}"' for i in alike[:3])
    more = f" and {len(alike) - 3} more" if len(alike) > 3 else ""
    return f'{said}; "{names[first]}" is not told apart from {others}{more}'


def _quality(how: Mapping[str, Any]) -> str:
    """What the method says of its fit, on calls that were held out."""
    details = (how.get("method") or {}).get("details") or {}
    quality = details.get("quality")
    if not isinstance(quality, Mapping):
        return ""
    figures = [
        f"{label} {value:.2f}"
        for label, key in (("LDS", "lds"), ("R2", "r2"))
        if isinstance(value := quality.get(key), (int, float))
    ]
    if not figures:
        return "exact: every coalition was measured" if details.get("exact") else ""
    return f"{', '.join(figures)} on calls held out (1 = predicted perfectly)"


def _noise(attribution: Attribution) -> str:
    """How much the model's answers to one prompt differ."""
    noise = attribution.noise
    if noise is None:
        return ""
    if not noise.varies:
        return f"none: {plural(noise.answers, 'answer')} to the same prompt were the same"
    metric = attribution.metric
    floor, sigma = (float(np.nan_to_num(a[metric][0])) for a in (noise.floor, noise.sigma))
    digits = scale.digits_for(max(abs(floor), sigma))
    said = (
        f"{plural(noise.answers, 'answer')} to the same prompt differ by {floor:.{digits}f} "
        f"± {sigma:.{digits}f} {harmless(metric, keep_newlines=False)}, which is taken off"
    )
    p_values = noise.p_values.get(metric)
    if p_values is not None and np.isfinite(p_values).any():
        shifted = int((p_values <= 1 - LEVEL).sum())
        said += f"; without {plural(shifted, 'unit')} the answers shift (p <= {1 - LEVEL:.1f})"
    return said


def _budget(how: Mapping[str, Any]) -> str:
    """What there was to spend and what was left."""
    budget = how.get("budget")
    if not isinstance(budget, Mapping):
        return ""
    said = []
    for key, used, unit in (("max_calls", "calls", "calls"), ("max_tokens", "tokens", "tokens")):
        if (cap := budget.get(key)) is not None:
            left = cap - budget[used]
            rest = "all used" if left <= 0 else f"{budget[used]:,} used, {left:,} not spent"
            said.append(f"{cap:,} {unit}: {rest}")
    if (cap := budget.get("max_cost")) is not None:
        spent = float(budget.get("cost") or 0.0)
        said.append(f"${cap:g}: ${spent:.4g} used, ${max(0.0, cap - spent):.4g} not spent")
    return "; ".join(said)


def _name(part: object) -> str:
    """A part of the provenance as the command line writes it: ``fixed:text=...``."""
    if not isinstance(part, Mapping):
        return "unknown"
    options = part.get("options") or {}
    if not options:
        return str(part.get("name", ""))
    inner = ",".join(f"{key}={value}" for key, value in options.items())
    return one_line(f"{part.get('name', '')}:{inner}", 60)


def _fixed(attribution: Attribution) -> str:
    prompt = attribution.prompt
    if not prompt.fixed:
        return "nothing"
    by_reason: dict[str, list[FixedSpan]] = {}
    for span in prompt.fixed:
        by_reason.setdefault(span.reason, []).append(span)
    said = []
    for reason, spans in by_reason.items():
        texts = [prompt.messages[s.message].text[s.start : s.end].strip() for s in spans]
        quoted = [f'"{one_line(text, 24)}"' for text in dict.fromkeys(texts)]
        shown = ", ".join(quoted[:6]) + (", ..." if len(quoted) > 6 else "")
        kind = {"user": "part named by you", "role": "message"}.get(reason, reason)
        said.append(f"{plural(len(spans), kind, _plural_kind(kind))} ({shown})")
    return "; ".join(said)


def _plural_kind(kind: str) -> str:
    return {"part named by you": "parts named by you", "template text": "template texts"}.get(
        kind, kind + "s"
    )


def spending(result: Attribution | Evaluation) -> str:
    """Calls, cached answers, tokens and money, in words."""
    if not result.calls and result.cache_hits:
        return f"nothing: all {plural(result.cache_hits, 'answer')} came from the cache"
    calls = plural(result.calls, "model call")
    cached = f" and {plural(result.cache_hits, 'answer')} from the cache"
    usage = result.usage
    tokens = f"{usage.prompt_tokens:,} prompt and {usage.completion_tokens:,} output tokens"
    if result.cost is None:
        money = "cost not known"
    elif result.cost == 0:
        money = "no cost"
    else:
        money = f"${result.cost:.4g}" if result.cost < 1 else f"${result.cost:,.2f}"
    return f"{calls}{cached if result.cache_hits else ''}; {tokens}; {money}"
