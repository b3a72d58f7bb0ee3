# SPDX-License-Identifier: Apache-2.0
"""Attributions made by hand, so that a test says exactly what is shown."""

import re

import numpy as np
import pytest

from pizza.attribution import Attribution, Evaluations, MetricScores, Target
from pizza.completion import Completion, Usage
from pizza.prompt import Prompt


@pytest.fixture
def made():
    """A function from a prompt and its words' scores to an attribution."""

    def make(
        prompt, scores, *, answer="5", more=(), errors=None, target=None, without=(), **fields
    ):
        prompt = Prompt.of(prompt)
        units = [
            prompt.unit(number, start + word.start(), start + word.end())
            for number, message in enumerate(prompt.messages)
            for start, end in prompt.free_spans(number)
            for word in re.finditer(r"\S+", message.text[start:end])
        ]
        scores = np.array([*scores, *[0.0] * (len(units) - len(scores))], dtype=float)
        rows = np.vstack([scores, scores])

        def result(name, values, std=None):
            return MetricScores(metric=name, scores=values, standard_errors=std)

        return Attribution(
            prompt=prompt,
            units=tuple(units),
            target=target or Target(),
            output=Completion(text=answer, tokens=(answer,)),
            results=(
                result("logprob-diff", rows, None if errors is None else rows * 0 + errors),
                *(result(name, rows * factor) for name, factor in more),
            ),
            evaluations=Evaluations(
                coalitions=~np.eye(len(units), dtype=bool)[: len(without)],
                effects={},
                answers=tuple(without),
            ),
            **{
                "calls": 7,
                "cache_hits": 2,
                "usage": Usage(prompt_tokens=1234, completion_tokens=7),
                "cost": 0.0,
                "provenance": {
                    "backend": "fake:one",
                    "segmenter": {"name": "word", "options": {}},
                    "method": {"name": "leave-one-out", "options": {}},
                    "perturbation": {"name": "fixed", "options": {"text": "..."}},
                    "evidence": "score",
                },
                **fields,
            },
        )

    return make
