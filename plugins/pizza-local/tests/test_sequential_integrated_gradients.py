# SPDX-License-Identifier: Apache-2.0
"""Sequential integrated gradients: one token moves, the others stand."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pizza_local.methods import blocks  # noqa: E402
from pizza_local.methods.sequential_integrated_gradients import (  # noqa: E402
    SequentialIntegratedGradients,
)
from support import cases, oracles, tiny  # noqa: E402

from pizza.errors import ConfigError  # noqa: E402

UNK, MASK = 3, 4
"""Ids of the tiny tokenizers: the byte tokenizer has no mask token."""
USUAL = {
    "gpt2": UNK,
    "llama": UNK,
    "t5": UNK,
    "bert-classifier": MASK,
    "bert-mlm": MASK,
    "bag-of-words": "zero",
}


def moved(explained):
    return [place for place, used in enumerate(explained.inside) if used]


def sequential(explained, baseline, steps=3, rule="gauss-legendre", function="logprob"):
    """Scores ``(rows, tokens)``, token by token and step by step."""
    start, absent = explained.start(), explained.baseline(baseline)
    scores = torch.zeros((len(explained.rows(start, function)), len(start)), dtype=start.dtype)
    for place in moved(explained):
        for alpha, weight in oracles.quadrature(rule, steps):
            point = start.clone()
            point[place] = absent[place] + alpha * (start[place] - absent[place])
            slope = explained.jacobian(point, function)[:, place]
            scores[:, place] += weight * (slope * (start[place] - absent[place])).sum(-1)
    return scores


def replaced(explained, baseline):
    """What the rows lose when a token is replaced, ``(rows, tokens)``."""
    start, absent = explained.start(), explained.baseline(baseline)
    with torch.no_grad():
        whole = explained.rows(start)
        gaps = torch.zeros((len(whole), len(start)), dtype=start.dtype)
        for place in moved(explained):
            point = start.clone()
            point[place] = absent[place]
            gaps[:, place] = whole - explained.rows(point)
    return gaps


@pytest.mark.parametrize("kind", oracles.KINDS)
async def test_each_token_moves_by_itself_from_the_usual_baseline(kind):
    case = cases.make(kind)
    found = await case.attribute(SequentialIntegratedGradients(steps=3))
    expected = sequential(case.targets["text"][1], USUAL[kind])
    assert oracles.apart(found.scores, case.units(expected)) < case.tolerance
    name = {UNK: "unk", MASK: "mask"}.get(USUAL[kind], "zero")
    assert found.provenance["method"]["details"]["baseline"] == name


@pytest.mark.parametrize(
    ("kind", "function", "target", "rule", "baseline"),
    [
        ("gpt2", "prob", "text", "trapezoid", "zero"),
        ("gpt2", "logit", "contrast", "riemann-middle", 9),
        ("t5", "logprob", "contrast", "gauss-legendre", UNK),
        ("bert-classifier", "logit", "contrast", "riemann-left", "zero"),
        ("bert-mlm", "kl", "text", "gauss-legendre", MASK),
    ],
)
async def test_options(kind, function, target, rule, baseline):
    case = cases.make(kind)
    method = SequentialIntegratedGradients(2, rule, baseline, function=function)
    found = await case.attribute(method, target)
    expected = sequential(case.targets[target][1], baseline, 2, rule, function)
    assert oracles.apart(found.scores, case.units(expected)) < case.tolerance


@pytest.mark.parametrize("kind", ["gpt2", "bert-mlm"])
async def test_a_token_scores_what_replacing_it_changes(kind):
    """Completeness, token by token, at the level of the sequence."""
    case = cases.make(kind)
    found = await case.attribute(SequentialIntegratedGradients(steps=40, level="sequence"))
    explained = case.targets["text"][1]
    gaps = replaced(explained, USUAL[kind])[:1]
    assert oracles.apart(found.scores[:1], case.units(gaps)) < 1e-6
    assert np.isnan(found.scores[1:]).all()
    details = found.provenance["method"]["details"]
    assert details["completeness_error"][0] < 1e-6
    assert details["largest_difference"][0] == pytest.approx(float(gaps.abs().max()))
    assert found.warnings == ()


async def test_the_largest_error_is_told_when_steps_are_few():
    case = cases.make("gpt2")
    found = await case.attribute(SequentialIntegratedGradients(1, "riemann-left"))
    explained = case.targets["text"][1]
    rough = sequential(explained, UNK, 1, "riemann-left")
    details = found.provenance["method"]["details"]
    largest = (rough - replaced(explained, UNK)).abs().amax(1)
    assert details["completeness_error"] == pytest.approx(largest.tolist(), rel=1e-9)
    (warning,) = found.warnings
    assert "use more steps" in warning


async def test_cost_is_a_point_for_each_step_of_each_token_of_units():
    case = cases.make("bert-classifier")
    found = await case.attribute(SequentialIntegratedGradients(steps=4))
    passes = found.provenance["method"]["details"]["passes"]
    n = len(case.ids)
    tokens = sum(case.targets["text"][1].inside)
    assert passes["backward_tokens"] == tokens * 4 * n
    # The differences need one point for every token, and the prompt's own.
    assert passes["forward_tokens"] == tokens * 4 * n + (tokens + 1) * n


async def test_pieces_change_nothing(monkeypatch):
    case = cases.make("t5")
    method = SequentialIntegratedGradients(steps=2)
    first = await case.attribute(method)
    monkeypatch.setattr(blocks, "_BYTES", 5 * case.targets["text"][1].start().numel() * 8)
    again = await case.attribute(method)
    assert oracles.apart(again.scores, first.scores) < case.tolerance


async def test_it_is_that_of_inseq(monkeypatch):
    """inseq's own step function, on the same embeddings of the same token ids."""
    ops = pytest.importorskip("inseq.attr.feat.ops.sequential_integrated_gradients")
    case = cases.make("gpt2")
    explained = case.targets["text"][1]
    start, absent = explained.start(), explained.baseline(UNK)
    assert start.shape[0] == len(case.ids) + len(explained.reading.targets) - 1

    def forward(points):
        return torch.stack([explained.rows(point)[:1] for point in points])

    theirs = ops.SequentialIntegratedGradients(forward).attribute(
        start[None], absent[None], target=0, n_steps=3, method="gausslegendre"
    )
    found = await case.attribute(SequentialIntegratedGradients(steps=3))
    whole = theirs[0].sum(-1).detach()[None]
    assert oracles.apart(found.scores[:1], case.units(whole)) < 1e-6


def test_there_is_always_a_usual_baseline():
    assert tiny.byte_tokenizer().mask_token_id is None
    assert tiny.byte_tokenizer().unk_token_id == UNK
    assert tiny.word_tokenizer().mask_token_id == MASK


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"steps": 1, "rule": "trapezoid"}, {"rule": "simpson"}]
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(ConfigError, match=str(list(options.values())[-1])):
        SequentialIntegratedGradients(**options)


async def test_a_baseline_that_the_tokenizer_lacks_is_refused():
    case = cases.make("gpt2")
    with pytest.raises(ConfigError, match="no mask token"):
        await case.attribute(SequentialIntegratedGradients(baseline="mask"))
