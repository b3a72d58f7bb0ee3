# SPDX-License-Identifier: Apache-2.0
"""Gradient SHAP in embedding space, for every output token."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pizza_local import LocalBackend  # noqa: E402
from pizza_local.methods import blocks  # noqa: E402
from pizza_local.methods.gradient_shap import GradientShap  # noqa: E402
from pizza_local.methods.integrated_gradients import IntegratedGradients  # noqa: E402
from support import cases, oracles  # noqa: E402

from pizza.errors import ConfigError  # noqa: E402

UNK = 3


def samples_of(explained, samples, function="logprob", baselines=("zero",), stdev=0.0, seed=0):
    """Scores of each sample, ``(samples, rows, tokens)``, with the draws of that seed."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(len(baselines), (samples,), generator=generator).tolist()
    alphas = torch.rand(samples, generator=generator, dtype=torch.float64).tolist()
    seeds = torch.randint(1 << 62, (samples,), generator=generator).tolist()
    start = explained.start()
    used = torch.zeros(len(start), dtype=torch.bool)
    used[: explained.n_prompt] = torch.tensor(explained.inside)
    scale = stdev * start[used].double().pow(2).mean().sqrt()
    found = []
    for sample in range(samples):
        own = torch.Generator().manual_seed(seeds[sample])
        noise = torch.randn(start.shape, generator=own, dtype=torch.float64) * scale
        end = start + torch.where(used[:, None], noise, torch.zeros_like(noise)).to(start)
        absent = explained.baseline(baselines[which[sample]])
        gradients = explained.jacobian(absent + alphas[sample] * (end - absent), function)
        found.append((gradients * (end - absent)).sum(-1))
    return torch.stack(found)


def absent(kind):
    """A baseline far from the zero vector where norms are computed in single precision.

    There the norm of nearly nothing makes the rounding of two orders of summation visible.
    """
    return UNK if kind in ("llama", "t5") else "zero"


@pytest.mark.parametrize("kind", oracles.KINDS)
async def test_it_is_the_mean_over_random_points_for_every_output_token(kind):
    case = cases.make(kind)
    baseline = absent(kind)
    found = await case.attribute(GradientShap(samples=3, stdev=0.2, baselines=baseline))
    expected = samples_of(case.targets["text"][1], 3, "logprob", (baseline,), stdev=0.2).mean(0)
    assert oracles.apart(found.scores, case.units(expected)) < case.tolerance


@pytest.mark.parametrize(
    ("kind", "function", "target"),
    [
        ("gpt2", "entropy", "text"),
        ("llama", "prob", "text"),
        ("t5", "logit", "contrast"),
        ("gpt2", "logprob", "contrast"),
        ("bert-classifier", "prob", "contrast"),
        ("bert-mlm", "logit", "tokens"),
    ],
)
async def test_other_functions_and_targets(kind, function, target):
    case = cases.make(kind)
    baseline = absent(kind)
    method = GradientShap(samples=3, function=function, baselines=baseline)
    found = await case.attribute(method, target)
    expected = samples_of(case.targets[target][1], 3, function, (baseline,)).mean(0)
    assert oracles.apart(found.scores, case.units(expected)) < case.tolerance


@pytest.mark.parametrize("kind", ["gpt2", "t5", "bert-mlm"])
async def test_at_the_level_of_the_sequence_the_whole_is_the_same(kind):
    case = cases.make(kind)
    baseline = absent(kind)
    found = await case.attribute(GradientShap(samples=3, level="sequence", baselines=baseline))
    whole = samples_of(case.targets["text"][1], 3, "logprob", (baseline,)).mean(0)[:1]
    assert oracles.apart(found.scores[:1], case.units(whole)) < case.tolerance
    assert np.isnan(found.scores[1:]).all()


async def test_baselines_are_drawn_per_sample():
    case = cases.make("gpt2")
    baselines = ["zero", 7]
    found = await case.attribute(GradientShap(samples=6, baselines=baselines), seed=3)
    explained = case.targets["text"][1]
    each = samples_of(explained, 6, baselines=baselines, seed=3)
    assert oracles.apart(found.scores, case.units(each.mean(0))) < case.tolerance
    details = found.provenance["method"]["details"]
    assert details["baselines"] == baselines
    error = each[:, 0].std(0, correction=1).max() / 6**0.5
    assert details["sampling_error"] == pytest.approx(float(error), rel=1e-9)


async def test_the_reported_miss_is_the_difference_that_scores_do_not_explain():
    case = cases.make("gpt2")
    found = await case.attribute(GradientShap(samples=4))
    explained = case.targets["text"][1]
    with torch.no_grad():
        gap = explained.rows(explained.start()) - explained.rows(explained.baseline())
    details = found.provenance["method"]["details"]
    assert oracles.apart(details["difference_to_baseline"], gap) < case.tolerance
    assert oracles.apart(details["completeness_error"], found.scores.sum(1) - gap.numpy()) < 1e-8


async def test_many_samples_approach_integrated_gradients():
    case = cases.make("bag-of-words")
    sampled = await case.attribute(GradientShap(samples=4000, function="logit"))
    exact = await case.attribute(IntegratedGradients(steps=200, function="logit"))
    error = sampled.provenance["method"]["details"]["sampling_error"]
    apart = np.abs(sampled.unit_scores - exact.unit_scores).max()
    assert 0 < apart < 5 * error
    few = await case.attribute(GradientShap(samples=40, function="logit"))
    few_error = few.provenance["method"]["details"]["sampling_error"]
    assert few_error == pytest.approx(10 * error, rel=0.5)


async def test_a_linear_module_scores_as_with_captum():
    attr = pytest.importorskip("captum.attr")
    torch.manual_seed(1)
    module = torch.nn.Linear(len(cases.WORDS), 3).double()
    case = cases.make("bag-of-words")
    object.__setattr__(
        case, "open", lambda: LocalBackend.from_features(module, cases.WORDS, cases.LABELS)
    )
    found = await case.attribute(GradientShap(samples=3, function="logit"))
    features = case.targets["text"][1].reading.features
    counts = torch.bincount(torch.tensor(features), minlength=len(cases.WORDS)).double()[None]
    theirs = attr.GradientShap(module).attribute(counts, torch.zeros_like(counts), target=2)[0]
    # Occurrences of one word share its score evenly: the module sees only their number.
    shared = (theirs / counts[0].clamp_min(1))[features]
    assert oracles.apart(found.scores, case.units(shared.expand(2, -1))) < 1e-9


async def test_random_numbers_depend_on_the_seed_and_not_on_the_size_of_pieces(monkeypatch):
    case = cases.make("bert-classifier")
    method = GradientShap(samples=5, stdev=0.3, baselines=["zero", "pad"])
    first = await case.attribute(method, seed=1)
    other = await case.attribute(method, seed=2)
    monkeypatch.setattr(blocks, "_BYTES", 1)
    again = await case.attribute(method, seed=1)
    assert oracles.apart(again.scores, first.scores) < 1e-9
    assert oracles.apart(other.scores, first.scores) > 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 0},
        {"samples": 2.5},
        {"samples": True},
        {"stdev": -0.1},
        {"stdev": float("nan")},
        {"stdev": "wide"},
        {"baselines": []},
        {"function": "loss"},
        {"level": "word"},
    ],
)
def test_options_that_mean_nothing_are_refused(options):
    (value,) = options.values()
    with pytest.raises(ConfigError, match=str(value) if value != [] else "is empty"):
        GradientShap(**options)
