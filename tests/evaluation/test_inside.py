# SPDX-License-Identifier: Apache-2.0
"""Scores that were found by looking inside a model are held against the model from outside."""

from pathlib import Path

import pytest

import pizza

pytestmark = pytest.mark.torch

pytest.importorskip("torch")
pytest.importorskip("pizza_local")
pizza_embedded = pytest.importorskip("pizza_embedded")

PROMPT = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"


async def test_integrated_gradients_of_one_runtime_foretell_what_another_does():
    weights = Path(pizza_embedded.__path__[0]) / "weights"
    method = "integrated-gradients:baseline=pad,level=sequence"
    async with pizza.Session(f"local:{weights}") as session:
        attribution = await session.attribute(PROMPT, method=method)
        same = await session.evaluate(attribution, budget=120)
    async with pizza.Session("embedded") as session:
        other = await session.evaluate(attribution, budget=120)
    assert same.provenance["perturbation"]["name"] == "delete"
    assert same.metric == "logprob-diff"
    for result in same.results:
        # The same weights, on another runtime: the output's tokens and their scores are the same.
        assert other[result.measure].value == pytest.approx(result.value, abs=1e-3)
    assert same["lds"].value > same["lds"].random + 0.2
    assert same["deletion"].value < same["deletion"].random
    assert other.warnings == (
        "measured on embedded:default; the attribution was made with local:weights.",
    )
