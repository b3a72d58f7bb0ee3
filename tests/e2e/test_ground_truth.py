# SPDX-License-Identifier: Apache-2.0
"""The embedded model knows which words its answers depend on: attribution must find them."""

import pytest
from support.ground_truth import causal_first, copies_found, correct_examples, overlaps

import pizza

N_PROMPTS = 200
N_REDUNDANT = 60


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The file of answers that these tests share: what one has asked the others need not."""
    return tmp_path_factory.mktemp("answers") / "answers.sqlite"


@pytest.mark.parametrize("perturbation", ["delete", "fixed:text=...", "fixed:text="])
async def test_leave_one_out_puts_a_causal_word_first(perturbation, answers):
    async with pizza.Session("embedded", cache=answers) as session:
        examples, exact = await correct_examples(session, N_PROMPTS)
        assert len({e.text for e in examples}) == N_PROMPTS
        first = value_in_three = 0
        by_prompt = {e.text: e for e in examples}
        async with session.attribute_many(by_prompt, perturbation=perturbation) as outcomes:
            async for outcome in outcomes:
                assert outcome.error is None
                example = by_prompt[outcome.prompt]
                ranked = [unit for unit, _ in outcome.attribution.top(3)]
                first += causal_first(example, outcome.attribution)
                value_in_three += any(overlaps(unit, example.value_spans) for unit in ranked)
    figures = f"exact {exact:.3f}, causal first {first}, value in three {value_in_three}"
    print(perturbation, figures)
    assert exact >= 0.95, figures
    assert first >= 0.98 * N_PROMPTS, figures
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


async def counted(session, examples, found, **options):
    """In how many of the examples an attribution finds what is there, and calls per example."""
    by_prompt = {e.text: e for e in examples}
    hits, calls = set(), 0
    async with session.attribute_many(by_prompt, **options) as outcomes:
        async for outcome in outcomes:
            assert outcome.error is None
            calls += len(outcome.attribution.evaluations)
            if found(by_prompt[outcome.prompt], outcome.attribution):
                hits.add(outcome.prompt)
    return hits, calls / len(by_prompt)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_64_calls_put_a_causal_word_first_as_often_as_leave_one_out(answers):
    async with pizza.Session("embedded", cache=answers) as session:
        examples, _ = await correct_examples(session, N_PROMPTS)
        alone, all_calls = await counted(session, examples, causal_first)
        budgeted, calls = await counted(session, examples, causal_first, budget=64)
    figures = (
        f"leave-one-out {len(alone)} ({all_calls:.0f} calls each), "
        f"budget of 64 {len(budgeted)} ({calls:.0f}) of {N_PROMPTS}"
    )
    print(figures)
    assert calls <= 64
    assert len(budgeted) >= len(alone), figures


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_evidence_that_stands_twice_is_found_where_leave_one_out_fails():
    async with pizza.Session("embedded") as session:
        examples, _ = await correct_examples(session, N_REDUNDANT, redundant=True)
        alone, _ = await counted(session, examples, copies_found)
        budgeted, _ = await counted(session, examples, copies_found, budget=64)
    failed = {e.text for e in examples} - alone
    figures = (
        f"both copies among the first four: leave-one-out {len(alone)}, budget of "
        f"64 {len(budgeted)} of {len(examples)}; of the {len(failed)} where leave-one-out fails "
        f"{len(budgeted - alone)}"
    )
    print(figures)
    assert len(failed) > len(examples) / 4, figures
    assert len(budgeted) >= 0.8 * len(examples), figures
    assert len(budgeted - alone) >= 0.8 * len(failed), figures
