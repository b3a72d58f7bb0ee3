# SPDX-License-Identifier: Apache-2.0
"""Layer variants: gradients at what leaves a block, beside hooks on the model itself."""

import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from support import cases, oracles  # noqa: E402

import pizza  # noqa: E402
from pizza.errors import CapabilityError, ConfigError  # noqa: E402

TRANSFORMERS = tuple(kind for kind in oracles.KINDS if kind != "bag-of-words")
METHODS = {
    "layer-saliency": (oracles.saliency, "norm", {}),
    "layer-input-x-gradient": (oracles.input_x_gradient, "sum", {}),
    "layer-integrated-gradients": (oracles.integrated_gradients, "sum", {"steps": 3}),
}


@pytest.mark.parametrize("kind", TRANSFORMERS)
@pytest.mark.parametrize("method", METHODS)
async def test_every_layer(kind, method):
    case = cases.make(kind)
    oracle, how, options = METHODS[method]
    explained = case.targets["text"][1]
    n_layers = len(explained.reading.blocks())
    async with pizza.Session(case.open()) as session:
        for layer in range(n_layers + 1):
            told = ",".join(f"{k}={v}" for k, v in {"layer": layer, **options}.items())
            found = await case.ask(session, f"{method}:{told}")
            expected = oracle(explained, layer=layer, **options).detach()
            # What enters a norm: its scale changes nothing, so sums of signed terms cancel.
            scale = oracles.terms(explained, layer) if layer == n_layers and how == "sum" else None
            apart = oracles.apart(found.scores, case.units(expected, how), scale)
            assert apart <= case.tolerance, layer
            assert found.provenance["method"]["details"]["layer"] == layer


@pytest.mark.parametrize("kind", TRANSFORMERS)
async def test_the_last_layer_is_the_default_and_negative_numbers_count_from_it(kind):
    case = cases.make(kind)
    n_layers = len(case.targets["text"][1].reading.blocks())
    async with pizza.Session(case.open()) as session:
        last = await case.ask(session, "layer-saliency")
        same = await case.ask(session, f"saliency:layer={n_layers}")
        before = await case.ask(session, "saliency:layer=-2")
    assert oracles.apart(last.scores, same.scores) == 0
    assert before.provenance["method"]["details"]["layer"] == n_layers - 1


@pytest.mark.parametrize("target", ["span", "contrast"])
async def test_spans_and_contrasts_at_a_layer(target):
    case = cases.make("gpt2")
    explained = case.targets[target][1]
    found = await case.attribute("layer-integrated-gradients:layer=1,steps=3", target)
    expected = oracles.integrated_gradients(explained, steps=3, layer=1)
    assert oracles.apart(found.scores, case.expected(target, expected)) <= 1e-9


@pytest.mark.parametrize(
    ("layer", "error"), [(4, CapabilityError), (-5, CapabilityError), (1.5, ConfigError)]
)
async def test_layers_that_there_are_not(layer, error):
    from pizza_local.methods.saliency import Saliency

    with pytest.raises(error, match="layer"):
        await cases.make("gpt2").attribute(Saliency(layer=layer))


async def test_a_plain_module_has_no_blocks():
    with pytest.raises(CapabilityError, match="there is no layer 1"):
        await cases.make("bag-of-words").attribute("saliency:layer=1")


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5"])
async def test_activation_x_gradient_in_front_of_a_norm_is_nothing_and_that_is_said(kind):
    case = cases.make(kind)
    async with pizza.Session(case.open()) as session:
        last = await case.ask(session, "layer-input-x-gradient:layer=-1")
        usual = await case.ask(session, "layer-input-x-gradient")
    assert any("0 but for rounding" in text for text in last.warnings)
    assert not any("0 but for rounding" in text for text in usual.warnings)
    layers = len(case.targets["text"][1].reading.blocks())
    assert usual.provenance["method"]["details"]["layer"] == layers - 1
