# SPDX-License-Identifier: Apache-2.0
"""Measures a model on held-out prompts: ``python tools/train_embedded/evaluate.py [FOLDER]``.

Prints, and writes to ``FOLDER/metrics.json``, how often answers are exact and how often leaving
out one word finds the words an answer depends on.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pizza_embedded import world
from pizza_embedded.runtime import WEIGHTS, Runtime
from pizza_embedded.world import Example, Span

README_PROMPT = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"


@dataclass(frozen=True, slots=True)
class Removal:
    """How a word is taken away.

    Attributes:
        text: What stands in its place; None takes the space before it out as well.
        attached: Whether punctuation glued to the word goes with it.
    """

    text: str | None
    attached: bool = True


REMOVALS = {
    "delete": Removal(None),
    "fixed ''": Removal(""),
    "fixed '...'": Removal("..."),
    "fixed '_'": Removal("_"),
    "delete, punctuation stays": Removal(None, attached=False),
    "fixed '...', punctuation stays": Removal("...", attached=False),
}


def words(text: str, fixed: Sequence[Span] = (), *, attached: bool = True) -> list[Span]:
    """Return the spans of the words of a text that are not in a ``fixed`` span."""
    found = []
    for match in re.finditer(r"\S+", text):
        start, end = match.span()
        if not attached:
            while start < end and not text[start].isalnum():
                start += 1
            while end > start and not text[end - 1].isalnum():
                end -= 1
        if end > start and not overlaps((start, end), fixed):
            found.append((start, end))
    return found


def without(text: str, span: Span, removal: Removal) -> str:
    """Return a text with one word taken away."""
    start, end = span
    if removal.text is not None:
        return text[:start] + removal.text + text[end:]
    return text[:start].rstrip() + text[end:]


def encode(runtime: Runtime, style: str, text: str) -> list[int]:
    """Return the ids of a prompt in chat or plain style."""
    if style == "plain":
        return runtime.tokenizer.encode(text)
    return runtime.apply_chat_template([("user", text)])[0]


def answers(runtime: Runtime, examples: Sequence[Example]) -> list[str]:
    """Return the model's answers; one that did not end is marked with an ellipsis."""
    prompts = [encode(runtime, example.style, example.text) for example in examples]
    results = runtime.generate(prompts, max_new_tokens=12)
    return [
        runtime.tokenizer.decode(r.token_ids) + ("" if r.finish_reason == "stop" else "…")
        for r in results
    ]


def exact(runtime: Runtime, examples: Sequence[Example]) -> dict[str, float]:
    """Return the share of exact answers per task, per kind of question and over all."""
    right: dict[str, list[bool]] = {}
    for example, answer in zip(examples, answers(runtime, examples), strict=True):
        for key in ("all", example.task, f"{example.task}/{example.question_style}"):
            right.setdefault(key, []).append(answer == example.answer)
    return {key: round(float(np.mean(values)), 4) for key, values in sorted(right.items())}


def drops(
    runtime: Runtime, examples: Sequence[Example], removal: Removal
) -> list[tuple[list[Span], np.ndarray]]:
    """Return each example's words and how much the answer's log-probability falls without each."""
    pairs, spans = [], []
    for example in examples:
        target = runtime.tokenizer.encode(example.answer)
        spans.append(words(example.text, example.scaffold_spans, attached=removal.attached))
        texts = [example.text, *(without(example.text, s, removal) for s in spans[-1])]
        pairs += [(encode(runtime, example.style, text), target) for text in texts]
    scores = [sum(value or 0.0 for value in s.logprobs) for s in runtime.score(pairs)]
    results, at = [], 0
    for found in spans:
        own = np.array(scores[at : at + len(found) + 1])
        results.append((found, own[0] - own[1:]))
        at += len(found) + 1
    return results


def overlaps(span: Span, others: Iterable[Span]) -> bool:
    """Say whether a span shares a character with any of some others."""
    return any(start < span[1] and span[0] < end for start, end in others)


def occlusion(runtime: Runtime, examples: Sequence[Example], removal: Removal) -> dict[str, float]:
    """Return how often leave-one-out finds causal words (of examples answered correctly)."""
    first, value_first, value_third = [], [], []
    per_task: dict[str, list[bool]] = {}
    for example, (spans, effect) in zip(examples, drops(runtime, examples, removal), strict=True):
        order = [spans[index] for index in np.argsort(-effect, kind="stable")]
        causal = (*example.value_spans, *example.key_spans)
        first.append(overlaps(order[0], causal))
        value_first.append(overlaps(order[0], example.value_spans))
        value_third.append(any(overlaps(span, example.value_spans) for span in order[:3]))
        per_task.setdefault(example.task, []).append(value_third[-1])
    result = {
        "causal_first": round(float(np.mean(first)), 4),
        "value_first": round(float(np.mean(value_first)), 4),
        "value_in_three": round(float(np.mean(value_third)), 4),
    }
    for task, found in sorted(per_task.items()):
        result[f"value_in_three/{task}"] = round(float(np.mean(found)), 4)
    return result


def evaluate(runtime: Runtime, n_exact: int, n_occlusion: int) -> dict[str, Any]:
    """Return all figures; see the model card for what each means."""
    figures: dict[str, Any] = {"identity": runtime.identity, "exact": {}, "occlusion": {}}
    for style in world.STYLES:
        for names in ("mixed", "known", "unseen"):
            examples = world.heldout(n_exact, seed=11, styles=[style], names=names)
            figures["exact"][f"{style}/{names}"] = exact(runtime, examples)
        weak = world.heldout(n_exact, seed=11, styles=[style], tasks=("capital",), kinds=world.WEAK)
        figures["exact"][f"{style}/weak kinds"] = exact(runtime, weak)
        examples = world.heldout(n_occlusion * 2, seed=12, styles=[style])
        right = [
            example
            for example, answer in zip(examples, answers(runtime, examples), strict=True)
            if answer == example.answer
        ][:n_occlusion]
        for name, removal in REMOVALS.items():
            if right:
                figures["occlusion"][f"{style}/{name}"] = occlusion(runtime, right, removal)
    ids = encode(runtime, "chat", README_PROMPT)
    (answer,) = runtime.generate([ids], max_new_tokens=8)
    figures["readme_answer"] = runtime.tokenizer.decode(answer.token_ids)
    return figures


def main() -> None:
    """Evaluate a folder of weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=WEIGHTS)
    parser.add_argument(
        "--exact", type=int, default=400, help="prompts per style and kind of names"
    )
    parser.add_argument("--occlusion", type=int, default=200, help="prompts per style")
    parser.add_argument("--write", action="store_true", help="keep the figures in metrics.json")
    options = parser.parse_args()
    figures = evaluate(Runtime.load(options.folder), options.exact, options.occlusion)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.write:
        (options.folder / "metrics.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
