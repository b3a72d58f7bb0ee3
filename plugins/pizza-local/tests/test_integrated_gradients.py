# SPDX-License-Identifier: Apache-2.0
"""Integrated gradients: every rule and baseline beside a loop over steps; sums that add up."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from pizza_local.methods.integrated_gradients import IntegratedGradients  # noqa: E402
from support import cases, oracles  # noqa: E402

import pizza  # noqa: E402
from pizza.errors import ConfigError  # noqa: E402

RULES = ("gauss-legendre", "riemann-left", "riemann-right", "riemann-middle", "trapezoid")


@pytest.mark.parametrize("kind", oracles.KINDS)
async def test_every_target_at_both_levels(kind):
    case = cases.make(kind)
    async with pizza.Session(case.open()) as session:
        for target, (_, explained) in case.targets.items():
            scores = oracles.integrated_gradients(explained, steps=3)
            expected = case.expected(target, scores)
            method = "integrated-gradients:steps=3"
            tokens = await case.ask(session, method, target)
            assert oracles.apart(tokens.scores, expected) <= case.tolerance, target
            whole = await case.ask(session, f"{method},level=sequence", target)
            assert oracles.apart(whole.scores[0], expected[0]) <= case.tolerance, target


@pytest.mark.parametrize("kind", oracles.KINDS)
async def test_single_precision_agrees_to_1e_5(kind):
    case = cases.make(kind, torch.float32)
    found = await case.attribute("integrated-gradients:steps=3")
    expected = oracles.integrated_gradients(case.targets["text"][1], steps=3)
    assert oracles.apart(found.scores, case.units(expected.detach())) <= 1e-5


async def test_every_rule_is_that_of_the_textbook():
    case = cases.make("gpt2")
    explained = case.targets["text"][1]
    async with pizza.Session(case.open()) as session:
        for rule in RULES:
            found = await case.ask(session, f"integrated-gradients:steps=4,rule={rule}")
            expected = oracles.integrated_gradients(explained, steps=4, rule=rule).detach()
            assert oracles.apart(found.scores, case.units(expected)) <= 1e-9, rule
            assert found.provenance["method"]["details"]["rule"] == rule


@pytest.mark.parametrize(
    ("kind", "baseline", "token"),
    [
        ("gpt2", "unk", 3),
        ("gpt2", "pad", 2),
        ("gpt2", "eos", 1),
        ("gpt2", 77, 77),
        ("llama", "bos", 0),
        ("t5", "pad", 2),
        ("bert-mlm", "mask", 4),
        ("bert-classifier", "pad", 0),
    ],
)
async def test_a_token_as_baseline(kind, baseline, token):
    case = cases.make(kind)
    found = await case.attribute(IntegratedGradients(steps=3, baseline=baseline))
    expected = oracles.integrated_gradients(case.targets["text"][1], steps=3, baseline=token)
    assert oracles.apart(found.scores, case.units(expected.detach())) <= case.tolerance


async def test_the_text_of_a_token_the_mean_embedding_and_vectors_as_baselines():
    case = cases.make("gpt2")
    explained = case.targets["text"][1]
    table = case.model.get_input_embeddings().weight.detach()
    vector = torch.linspace(-1, 1, table.shape[1], dtype=table.dtype)
    the = cases.tiny.byte_tokenizer()("A", add_special_tokens=False)["input_ids"]
    assert len(the) == 1
    for given, same in (("A", the[0]), ("mean", table.mean(0)), (vector.numpy(), vector)):
        found = await case.attribute(IntegratedGradients(steps=3, baseline=given))
        expected = oracles.integrated_gradients(explained, steps=3, baseline=same).detach()
        assert oracles.apart(found.scores, case.units(expected)) <= 1e-9


async def test_the_completeness_error_is_what_the_scores_miss_and_shrinks_with_steps():
    case = cases.make("gpt2")
    explained = case.targets["text"][1]
    with torch.no_grad():
        gap = explained.rows(explained.start()) - explained.rows(explained.baseline("zero"))
    errors = []
    async with pizza.Session(case.open()) as session:
        for steps in (2, 8, 32, 128):
            found = await case.ask(session, f"integrated-gradients:steps={steps}")
            details = found.provenance["method"]["details"]
            np.testing.assert_allclose(details["difference_to_baseline"], gap, rtol=1e-9)
            # Words and the white space between them are all that changes on the path.
            missed = found.scores.sum(1) + details["sum_outside_units"] - gap.numpy()
            np.testing.assert_allclose(missed, details["completeness_error"], atol=1e-9)
            errors.append(float(np.abs(missed).max()))
            coarse = abs(missed[0]) > 0.05 * abs(float(gap[0]))
            assert any("use more steps" in text for text in found.warnings) == coarse
    assert errors[3] < errors[2] < errors[0]
    assert errors[3] < 1e-4 * float(gap.abs().max())


async def test_the_path_of_a_divergence_from_the_prompt_can_be_explained():
    case = cases.make("gpt2")
    found = await case.attribute("integrated-gradients:steps=3,function=kl")
    expected = oracles.integrated_gradients(case.targets["text"][1], steps=3, function="kl")
    assert oracles.apart(found.scores, case.units(expected.detach())) <= 1e-9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "at least 1 steps"),
        ({"steps": 1, "rule": "trapezoid"}, "at least 2 steps"),
        ({"steps": True}, "not True"),
        ({"rule": "simpson"}, "one of gauss-legendre"),
    ],
)
def test_paths_that_there_are_not(options, message):
    with pytest.raises(ConfigError, match=message):
        IntegratedGradients(**options)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ("mask", "has no mask token"),
        ("two words", "it must be one of"),
        (384, "not in the vocabulary of 384"),
        (np.zeros((5, 7)), "does not fit points"),
    ],
)
async def test_baselines_that_there_are_not(baseline, message):
    case = cases.make("gpt2")
    with pytest.raises(ConfigError, match=message):
        await case.attribute(IntegratedGradients(baseline=baseline))
