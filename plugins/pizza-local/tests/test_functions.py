# SPDX-License-Identifier: Apache-2.0
"""The scalars of the output: each beside its definition, and the whole beside autograd's."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from pizza_local.gradients import functions  # noqa: E402
from support import cases, oracles  # noqa: E402

import pizza  # noqa: E402
from pizza.errors import ConfigError  # noqa: E402

NAMES = ("logprob", "prob", "logit", "entropy", "kl")


@pytest.mark.parametrize("kind", oracles.KINDS)
@pytest.mark.parametrize("function", NAMES[:-1])
async def test_every_function_and_target_on_every_kind_of_model(kind, function):
    case = cases.make(kind)
    async with pizza.Session(case.open()) as session:
        for target, (_, explained) in case.targets.items():
            found = await case.ask(session, f"input-x-gradient:function={function}", target)
            expected = case.expected(target, oracles.input_x_gradient(explained, function))
            assert oracles.apart(found.scores, expected) <= case.tolerance, target
            assert found.metric == function


@pytest.mark.parametrize("kind", oracles.KINDS)
async def test_a_divergence_from_the_prompt_is_seen_away_from_it(kind):
    case = cases.make(kind)
    async with pizza.Session(case.open()) as session:
        for target, (_, explained) in case.targets.items():
            found = await case.ask(session, "integrated-gradients:steps=2,function=kl", target)
            scores = oracles.integrated_gradients(explained, steps=2, function="kl")
            expected = case.expected(target, scores)
            assert oracles.apart(found.scores, expected) <= case.tolerance, target


async def test_a_divergence_from_the_prompt_is_flat_at_the_prompt_and_that_is_said():
    found = await cases.make("gpt2").attribute("saliency:function=kl")
    assert np.abs(found.scores).max() < 1e-12
    assert any("gradient there is 0" in text for text in found.warnings)


@pytest.mark.parametrize("name", NAMES)
def test_values_and_weights_are_those_of_the_definition(name):
    torch.manual_seed(0)
    logits = (3 * torch.randn(4, 11, dtype=torch.float64)).requires_grad_()
    clean = 3 * torch.randn(4, 11, dtype=torch.float64)
    targets = torch.tensor([3, 0, 10, 3])
    function = functions.make(name, targets, lambda: clean)
    p, q = logits.softmax(-1), clean.softmax(-1)
    own = p[torch.arange(4), targets]
    definition = {
        "logprob": own.log(),
        "prob": own,
        "logit": logits[torch.arange(4), targets],
        "entropy": -(p * p.log()).sum(-1),
        "kl": -(q * (q / p).log()).sum(-1),
    }[name]
    whole = definition.prod() if name == "prob" else definition.sum()
    each = function.each(logits)
    torch.testing.assert_close(each, definition, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(function.whole(each), whole, rtol=1e-12, atol=1e-12)
    leaf = definition.detach().clone().requires_grad_()
    (leaf.prod() if name == "prob" else leaf.sum()).backward()
    torch.testing.assert_close(function.weights(each.detach()), leaf.grad, rtol=1e-9, atol=1e-12)


def test_the_product_of_probabilities_has_a_gradient_where_one_of_them_vanishes():
    function = functions.make("prob", torch.tensor([0, 1]), lambda: None)
    each = torch.tensor([[0.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(function.weights(each)[0, 0], torch.tensor(0.5).double())


def test_a_function_that_there_is_not():
    with pytest.raises(ConfigError, match="logprob, prob, logit, entropy, kl"):
        functions.check_name("perplexity")
