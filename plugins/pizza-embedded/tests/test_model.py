# SPDX-License-Identifier: Apache-2.0
"""What the shipped weights can do: exact answers, and which words leave-one-out finds."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
import pytest
from pizza_embedded import world
from pizza_embedded.runtime import WEIGHTS, Runtime
from pizza_embedded.world import Example, Span

README_PROMPT = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"
N_PROMPTS = 200
EXACT, CAUSAL_FIRST, VALUE_IN_THREE = 0.95, 0.98, 0.95


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime.load()


def chat(runtime: Runtime, text: str) -> list[int]:
    return runtime.apply_chat_template([("user", text)])[0]


def answers(runtime: Runtime, texts: Sequence[str]) -> list[str]:
    """What the model says; an answer that it did not end counts as none."""
    results = runtime.generate([chat(runtime, text) for text in texts], max_new_tokens=12)
    return [
        runtime.tokenizer.decode(r.token_ids) if r.finish_reason == "stop" else "" for r in results
    ]


def words(text: str) -> list[Span]:
    return [match.span() for match in re.finditer(r"\S+", text)]


def without(text: str, span: Span, replacement: str | None) -> str:
    """Replace a word, or (None) delete it with the space before it."""
    start, end = span
    if replacement is None:
        return text[:start].rstrip() + text[end:]
    return text[:start] + replacement + text[end:]


def ranked(runtime: Runtime, text: str, answer: str, replacement: str | None) -> list[Span]:
    """Words by how much the answer's log-probability falls without each, most first."""
    target = runtime.tokenizer.encode(answer)
    spans = words(text)
    texts = [text, *(without(text, span, replacement) for span in spans)]
    scores = runtime.score([(chat(runtime, changed), target) for changed in texts])
    values = np.array([sum(v for v in s.logprobs if v is not None) for s in scores])
    return [spans[index] for index in np.argsort(values[1:], kind="stable")]


def overlaps(span: Span, others: Sequence[Span]) -> bool:
    return any(start < span[1] and span[0] < end for start, end in others)


@pytest.fixture(scope="module")
def correct(runtime: Runtime) -> list[Example]:
    """The first 200 held-out prompts that the model answers correctly."""
    examples = world.heldout(N_PROMPTS + 40, seed=21)
    said = answers(runtime, [example.text for example in examples])
    right = [e for e, answer in zip(examples, said, strict=True) if answer == e.answer]
    assert len(right) >= N_PROMPTS
    return right[:N_PROMPTS]


@pytest.mark.parametrize("names", ["mixed", "known"])
def test_held_out_prompts_are_answered(runtime: Runtime, names: str) -> None:
    # Of 200 prompts the share would differ by 1.5 points from draw to draw.
    examples = world.heldout(4 * N_PROMPTS, seed=20, names=names)
    said = answers(runtime, [example.text for example in examples])
    right = [answer == e.answer for e, answer in zip(examples, said, strict=True)]
    assert np.mean(right) >= EXACT, np.mean(right)


@pytest.mark.parametrize("replacement", [None, "..."], ids=["delete", "fixed"])
def test_leave_one_out_finds_the_words_an_answer_depends_on(
    runtime: Runtime, correct: list[Example], replacement: str | None
) -> None:
    first, value = [], []
    for example in correct:
        order = ranked(runtime, example.text, example.answer, replacement)
        first.append(overlaps(order[0], (*example.value_spans, *example.key_spans)))
        value.append(any(overlaps(span, example.value_spans) for span in order[:3]))
    assert np.mean(first) >= CAUSAL_FIRST
    assert np.mean(value) >= VALUE_IN_THREE


@pytest.mark.parametrize("replacement", [None, "", "...", "_"])
def test_readme_prompt(runtime: Runtime, replacement: str | None) -> None:
    assert answers(runtime, [README_PROMPT]) == ["5"]
    order = ranked(runtime, README_PROMPT, "5", replacement)
    assert "5" in [README_PROMPT[start:end] for start, end in order[:3]]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Bob has green pears. How many pears does Bob have?", "unknown"),
        ("Hello!", "unknown"),
        ("", "unknown"),
        ("What is the capital of Italy?", "unknown"),
    ],
)
def test_what_the_text_does_not_say_is_unknown(runtime: Runtime, text: str, answer: str) -> None:
    assert answers(runtime, [text]) == [answer]


def test_metrics_are_those_of_these_weights(runtime: Runtime) -> None:
    metrics = json.loads((WEIGHTS / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["identity"] == runtime.identity
    assert metrics["exact"]["chat/mixed"]["all"] >= EXACT
