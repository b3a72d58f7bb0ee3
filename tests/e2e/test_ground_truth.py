# SPDX-License-Identifier: Apache-2.0
"""The embedded model knows which words its answers depend on: attribution must find them."""

import pytest
from pizza_embedded.world import heldout

import pizza

N_PROMPTS = 200


def overlaps(unit, spans):
    return any(unit.start < end and start < unit.end for start, end in spans)


async def correct_examples(session, n):
    """The first ``n`` different held-out prompts answered correctly, and the share that is."""
    found, asked = [], 0
    # The generator may draw one prompt twice; each counts once.
    for example in {e.text: e for e in heldout(2 * n, seed=11)}.values():
        asked += 1
        request = pizza.Request(
            prompt=pizza.Prompt.of(example.text), generation=pizza.Generation(max_tokens=12)
        )
        if (await session.submit(request)).text.strip() == example.answer:
            found.append(example)
        if len(found) == n:
            break
    return found, len(found) / asked


@pytest.mark.parametrize("perturbation", ["delete", "fixed:text=...", "fixed:text="])
async def test_leave_one_out_puts_a_causal_word_first(perturbation):
    async with pizza.Session("embedded") as session:
        examples, exact = await correct_examples(session, N_PROMPTS)
        assert len({e.text for e in examples}) == N_PROMPTS
        causal_first = value_in_three = 0
        by_prompt = {e.text: e for e in examples}
        async with session.attribute_many(by_prompt, perturbation=perturbation) as outcomes:
            async for outcome in outcomes:
                assert outcome.error is None
                example = by_prompt[outcome.prompt]
                ranked = [unit for unit, _ in outcome.attribution.top(3)]
                causal = (*example.value_spans, *example.key_spans)
                causal_first += overlaps(ranked[0], causal)
                value_in_three += any(overlaps(unit, example.value_spans) for unit in ranked)
    figures = f"exact {exact:.3f}, causal first {causal_first}, value in three {value_in_three}"
    print(perturbation, figures)
    assert exact >= 0.95, figures
    assert causal_first >= 0.98 * N_PROMPTS, figures
    assert value_in_three >= 0.95 * N_PROMPTS, figures


README_PROMPT = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"


async def test_the_readmes_prompt_is_answered_and_its_evidence_found():
    async with pizza.Session("embedded") as session:
        result = await session.attribute(README_PROMPT)
    assert result.output.text.strip() == "5"
    assert "5" in [unit.text for unit, _ in result.top(3)]


@pytest.mark.parametrize("method", ["sliding-window:size=2,stride=1", "hierarchical"])
async def test_the_other_methods_point_at_the_evidence_too(method):
    async with pizza.Session("embedded") as session:
        result = await session.attribute(README_PROMPT, method=method)
    evidence = {"Bob", "5", "green", "pears.", "many", "pears", "have?"}
    assert {unit.text for unit, _ in result.top(3)} & evidence
