# SPDX-License-Identifier: Apache-2.0
"""Input x gradient is the embedding times autograd's gradient, on every kind of model."""

import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from support import cases, oracles  # noqa: E402

import pizza  # noqa: E402


@pytest.mark.parametrize("kind", oracles.KINDS)
async def test_every_target_at_both_levels(kind):
    case = cases.make(kind)
    async with pizza.Session(case.open()) as session:
        for target, (_, explained) in case.targets.items():
            expected = case.expected(target, oracles.input_x_gradient(explained))
            tokens = await case.ask(session, "input-x-gradient", target)
            assert oracles.apart(tokens.scores, expected) <= case.tolerance, target
            whole = await case.ask(session, "input-x-gradient:level=sequence", target)
            assert oracles.apart(whole.scores[0], expected[0]) <= case.tolerance, target


@pytest.mark.parametrize("kind", oracles.KINDS)
async def test_single_precision_agrees_to_1e_5(kind):
    case = cases.make(kind, torch.float32)
    found = await case.attribute("input-x-gradient")
    expected = case.units(oracles.input_x_gradient(case.targets["text"][1]).detach())
    assert oracles.apart(found.scores, expected) <= 1e-5


async def test_the_whole_is_the_sum_of_the_tokens_for_a_log_probability():
    case = cases.make("gpt2")
    found = await case.attribute("input-x-gradient")
    assert oracles.apart(found.scores[0], found.scores[1:].sum(0)) <= 1e-12


async def test_a_contrast_is_the_difference_of_both_outputs():
    case = cases.make("gpt2")
    async with pizza.Session(case.open()) as session:
        both = await case.ask(session, "input-x-gradient", "contrast")
        one = await case.ask(session, "input-x-gradient", "text")
        other = await session.attribute(
            case.prompt,
            units=list(case.words),
            method="input-x-gradient",
            target=pizza.Target.given(cases.OTHER),
        )
    assert oracles.apart(both.scores[0], one.scores[0] - other.scores[0]) <= 1e-9
    assert oracles.apart(both.scores[1:], one.scores[1:]) <= 1e-9
