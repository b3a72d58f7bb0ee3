# SPDX-License-Identifier: Apache-2.0
"""SmoothGrad, its square and VarGrad around gradients and input x gradient."""

import warnings

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pizza_local.methods import blocks  # noqa: E402
from pizza_local.methods.input_x_gradient import InputXGradient  # noqa: E402
from pizza_local.methods.saliency import Saliency  # noqa: E402
from pizza_local.methods.smooth_grad import SmoothGrad  # noqa: E402
from support import cases, oracles  # noqa: E402

from pizza.errors import ConfigError  # noqa: E402


def noisy(explained, samples, stdev, seed=0):
    """The noisy points, with the draws of that seed."""
    generator = torch.Generator().manual_seed(seed)
    start = explained.start()
    used = torch.zeros(len(start), dtype=torch.float64)
    used[: explained.n_prompt] = torch.tensor(explained.inside).double()
    scale = stdev * start[used > 0].double().pow(2).mean().sqrt()
    for _ in range(samples):
        drawn = torch.randn(start.shape, generator=generator, dtype=torch.float64)
        yield start + (drawn * scale * used[:, None]).to(start)


def maps(explained, samples=3, stdev=0.1, variant="gradient", function="logprob"):
    """Maps of the copies, ``(samples, rows, tokens, d)``."""
    found = []
    for point in noisy(explained, samples, stdev):
        gradients = explained.jacobian(point, function)
        found.append(gradients if variant == "gradient" else gradients * point)
    return torch.stack(found)


@pytest.mark.parametrize("kind", oracles.KINDS)
async def test_it_is_the_norm_of_the_mean_gradient(kind):
    case = cases.make(kind)
    found = await case.attribute(SmoothGrad(samples=3))
    expected = oracles.reduced(maps(case.targets["text"][1]).mean(0), "l2")
    assert oracles.apart(found.scores, case.units(expected, "norm")) < case.tolerance


@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad-squared", "vargrad"])
@pytest.mark.parametrize("variant", ["gradient", "input-x-gradient"])
@pytest.mark.parametrize("model", ["gpt2", "bert-mlm"])
async def test_what_is_made_of_the_copies(model, variant, kind):
    case = cases.make(model)
    found = await case.attribute(SmoothGrad(samples=4, variant=variant, kind=kind, norm="l1"))
    each = maps(case.targets["text"][1], 4, variant=variant)
    made = {
        "smoothgrad": each.mean(0),
        "smoothgrad-squared": (each**2).mean(0),
        "vargrad": each.var(0, correction=0),
    }[kind]
    assert oracles.apart(found.scores, case.units(made.abs().sum(-1))) < case.tolerance


@pytest.mark.parametrize(
    ("kind", "function", "target"),
    [
        ("gpt2", "prob", "text"),
        ("gpt2", "logit", "contrast"),
        ("llama", "entropy", "text"),
        ("t5", "prob", "contrast"),
        ("bert-classifier", "logit", "contrast"),
        ("bert-mlm", "prob", "span"),
    ],
)
async def test_other_functions_and_targets_signed(kind, function, target):
    case = cases.make(kind)
    method = SmoothGrad(samples=2, function=function, variant="input-x-gradient")
    found = await case.attribute(method, target)
    explained = case.targets[target][1]
    expected = maps(explained, 2, variant="input-x-gradient", function=function).mean(0).sum(-1)
    rows = ~np.isnan(found.scores).any(1)
    assert rows[0]
    assert oracles.apart(found.scores[rows], case.units(expected)[rows]) < case.tolerance


async def test_at_the_level_of_the_sequence_the_whole_is_the_same():
    case = cases.make("llama")
    found = await case.attribute(SmoothGrad(samples=2, level="sequence"))
    whole = oracles.reduced(maps(case.targets["text"][1], 2).mean(0), "l2")[:1]
    assert oracles.apart(found.scores[:1], case.units(whole, "norm")) < case.tolerance


@pytest.mark.parametrize(
    ("variant", "plain"), [("gradient", Saliency), ("input-x-gradient", InputXGradient)]
)
async def test_without_noise_it_is_the_plain_method(variant, plain):
    case = cases.make("gpt2")
    smooth = await case.attribute(SmoothGrad(samples=3, stdev=0, variant=variant))
    exact = await case.attribute(plain())
    assert oracles.apart(smooth.scores, exact.scores) < 1e-9
    flat = await case.attribute(SmoothGrad(samples=3, stdev=0, variant=variant, kind="vargrad"))
    assert np.abs(flat.scores).max() < 1e-12 * np.abs(exact.scores).max()


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [("smoothgrad", "smoothgrad"), ("smoothgrad-squared", "smoothgrad_sq"), ("vargrad", "vargrad")],
)
async def test_kinds_are_those_of_captum(kind, theirs, monkeypatch):
    attr = pytest.importorskip("captum.attr")
    case = cases.make("bert-classifier")
    explained = case.targets["text"][1]
    points = torch.stack(list(noisy(explained, 4, 0.1)))
    start = explained.start()

    def forward(batch):
        return case.model(inputs_embeds=batch).logits.log_softmax(-1)

    # Captum draws its noise itself; here it is given ours.
    monkeypatch.setattr(torch, "normal", lambda mean, std: points - start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = attr.NoiseTunnel(attr.InputXGradient(forward)).attribute(
            start[None], nt_type=theirs, nt_samples=4, stdevs=1.0, target=2
        )
    monkeypatch.undo()
    method = SmoothGrad(samples=4, variant="input-x-gradient", kind=kind)
    found = await case.attribute(method)
    whole = expected[0].sum(-1).detach()
    assert oracles.apart(found.scores, case.units(whole.expand(2, -1))) < 1e-9


async def test_noise_is_told_and_pieces_change_nothing(monkeypatch):
    case = cases.make("t5")
    method = SmoothGrad(samples=4, stdev=0.2, kind="vargrad")
    first = await case.attribute(method)
    start = case.targets["text"][1].start()
    used = torch.tensor(case.targets["text"][1].inside)
    details = first.provenance["method"]["details"]
    assert details["noise"] == pytest.approx(0.2 * float(start[used].pow(2).mean().sqrt()))
    monkeypatch.setattr(blocks, "_BYTES", 1)
    again = await case.attribute(method)
    assert oracles.apart(again.scores, first.scores) < case.tolerance


@pytest.mark.parametrize(
    ("options", "signed"),
    [
        ({}, False),
        ({"norm": "sum"}, True),
        ({"variant": "input-x-gradient"}, True),
        ({"variant": "input-x-gradient", "norm": "l1"}, False),
        ({"variant": "input-x-gradient", "kind": "vargrad"}, False),
        ({"norm": "sum", "kind": "smoothgrad-squared"}, False),
    ],
)
async def test_norms_and_squares_have_no_direction(options, signed):
    case = cases.make("bag-of-words")
    found = await case.attribute(SmoothGrad(samples=2, **options))
    assert found.provenance["signed"] is signed
    assert signed or found.scores.min() >= 0


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 0},
        {"samples": "many"},
        {"stdev": -1},
        {"stdev": float("inf")},
        {"norm": "l3"},
        {"variant": "saliency"},
        {"kind": "sg"},
        {"aggregation": "median"},
    ],
)
def test_options_that_mean_nothing_are_refused(options):
    (value,) = options.values()
    with pytest.raises(ConfigError, match=str(value)):
        SmoothGrad(**options)
