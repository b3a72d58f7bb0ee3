# SPDX-License-Identifier: Apache-2.0
"""Held-out prompts whose causal words are known, and whether a ranking finds them."""

from __future__ import annotations

from pizza_embedded.world import heldout

import pizza


def overlaps(unit, spans):
    return any(unit.start < end and start < unit.end for start, end in spans)


async def correct_examples(session, n, **options):
    """The first ``n`` different held-out prompts answered correctly, and the share that is."""
    found, asked = [], 0
    # The generator may draw one prompt twice; each counts once.
    for example in {e.text: e for e in heldout(3 * n, seed=11, **options)}.values():
        asked += 1
        request = pizza.Request(
            prompt=pizza.Prompt.of(example.text), generation=pizza.Generation(max_tokens=12)
        )
        if (await session.submit(request)).text.strip() == example.answer:
            found.append(example)
        if len(found) == n:
            break
    return found, len(found) / asked


def causal_first(example, attribution):
    """Whether the strongest word is one that the answer depends on."""
    strongest, _ = attribution.top(1)[0]
    return overlaps(strongest, (*example.value_spans, *example.key_spans))


def copies_found(example, attribution, k=4):
    """Whether the copies of some piece of evidence that stands twice are all among the first k."""
    ranked = [unit for unit, _ in attribution.top(k)]
    copies: dict[str, list[tuple[int, int]]] = {}
    for start, end in example.value_spans:
        copies.setdefault(example.text[start:end], []).append((start, end))
    return any(
        len(spans) > 1 and all(any(overlaps(unit, [span]) for unit in ranked) for span in spans)
        for spans in copies.values()
    )
