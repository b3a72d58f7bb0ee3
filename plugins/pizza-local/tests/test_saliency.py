# SPDX-License-Identifier: Apache-2.0
"""Saliency is a norm of autograd's gradient, on every kind of model."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from support import cases, oracles  # noqa: E402

import pizza  # noqa: E402
from pizza.errors import ConfigError  # noqa: E402

OWN = {"l1": "sum", "l2": "norm", "max": "max", "sum": "sum"}


@pytest.mark.parametrize("kind", oracles.KINDS)
async def test_every_norm_is_that_of_the_gradient_of_each_output_token_and_of_the_whole(kind):
    case = cases.make(kind)
    async with pizza.Session(case.open()) as session:
        for norm, how in OWN.items():
            found = await case.ask(session, f"saliency:norm={norm}")
            expected = oracles.saliency(case.targets["text"][1], norm)
            # Behind a layer norm that centres, the sum over the dimensions is 0 but for rounding.
            scale = float(oracles.saliency(case.targets["text"][1], "l1").max())
            scale = scale if norm == "sum" else None
            apart = oracles.apart(found.scores, case.units(expected, how), scale)
            assert apart <= case.tolerance, norm
            if norm != "sum":
                assert (found.scores >= 0).all()
            nothing = np.abs(found.scores).max() < 1e-9 * (scale or 1.0)
            assert any("0 but for rounding" in text for text in found.warnings) == nothing


@pytest.mark.parametrize("kind", oracles.KINDS)
async def test_every_kind_of_target(kind):
    case = cases.make(kind)
    async with pizza.Session(case.open()) as session:
        for target, (_, explained) in case.targets.items():
            found = await case.ask(session, "saliency", target)
            expected = case.expected(target, oracles.saliency(explained), "norm")
            assert oracles.apart(found.scores, expected) <= case.tolerance, target
            assert found.output.token_ids == tuple(explained.reading.targets)


@pytest.mark.parametrize("kind", oracles.KINDS)
async def test_single_precision_agrees_to_1e_5(kind):
    case = cases.make(kind, torch.float32)
    found = await case.attribute("saliency")
    expected = case.units(oracles.saliency(case.targets["text"][1]), "norm")
    assert oracles.apart(found.scores, expected) <= 1e-5


async def test_the_whole_sequence_is_one_row_of_the_same_numbers():
    case = cases.make("gpt2")
    async with pizza.Session(case.open()) as session:
        tokens = await case.ask(session, "saliency")
        whole = await case.ask(session, "saliency:level=sequence")
    assert oracles.apart(whole.scores[0], tokens.scores[0]) <= 1e-9
    assert np.isnan(whole.scores[1:]).all()


@pytest.mark.parametrize("norm", ["l3", "", "mean"])
def test_a_norm_that_there_is_not(norm):
    from pizza_local.methods.saliency import Saliency

    with pytest.raises(ConfigError, match="the norm of saliency is l1, l2, max, sum"):
        Saliency(norm=norm)
