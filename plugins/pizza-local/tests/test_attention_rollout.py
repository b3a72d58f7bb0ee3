# SPDX-License-Identifier: Apache-2.0
"""Attention rollout is the product of the weights that transformers reports."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from pizza_local.methods.attention_rollout import AttentionRollout  # noqa: E402
from support import attended  # noqa: E402

from pizza.errors import CapabilityError, ConfigError  # noqa: E402


def joint(layers):
    """``rownorm(A + I)`` of layers ``(1, heads, n, n)``, multiplied."""
    whole = torch.eye(layers[0].shape[-1], dtype=torch.float64)
    for layer in layers:
        mean = layer[0].double().mean(0)
        mixed = mean + torch.eye(len(mean))
        whole = (mixed / mixed.sum(1, keepdim=True)) @ whole
    return whole


def reference(case, output=None):
    """Rows ``(n_outputs, n_positions)``."""
    with torch.no_grad():
        found = case.eager()(**case.inputs(output), output_attentions=True)
    if not case.split:
        return joint(found.attentions)[case.readers(output)]
    # One sequence of the encoder's positions and the decoder's: every attention of the decoder is
    # a layer of it, in which the encoder's positions stay as they are.
    n, m = len(case.ids), len(case.output)
    whole = torch.eye(n + m, dtype=torch.float64)
    whole[:n, :n] = joint(found.encoder_attentions)
    for own, cross in zip(found.decoder_attentions, found.cross_attentions, strict=True):
        for start, stop, weights in ((n, n + m, own), (0, n, cross)):
            layer = torch.eye(n + m, dtype=torch.float64)
            layer[n:, start:stop] += weights[0].double().mean(0)
            layer[n:] /= layer[n:].sum(1, keepdim=True)
            whole = layer @ whole
    return whole[n:, :n]


@pytest.mark.parametrize("kind", [*attended.KINDS, "bart"])
async def test_rollout_is_the_product_of_the_layers(kind):
    case = attended.case(kind)
    found = await case.ask("attention-rollout")
    np.testing.assert_allclose(found.scores, case.scores(reference(case)), rtol=1e-9, atol=1e-12)
    assert found.metric == "attention"
    details = found.provenance["method"]["details"]
    assert details["passes"]["forward_passes"] == 1
    assert details["n_layers"] == (3 if kind in ("gpt2", "llama") else 2)


async def test_all_weight_comes_from_some_token():
    case = attended.case("llama")
    found = await case.ask("attention-rollout", units="word")
    details = found.provenance["method"]["details"]
    total = found.scores.sum(axis=1) + np.array(details["sum_outside_units"])
    np.testing.assert_allclose(total, 1.0, rtol=1e-6)


async def test_level_sequence_has_the_whole_only():
    case = attended.case("t5")
    found = await case.ask(AttentionRollout(level="sequence"))
    expected = case.scores(reference(case))[0]
    np.testing.assert_allclose(found.scores[0], expected, rtol=1e-9, atol=1e-12)
    assert np.isnan(found.scores[1:]).all()


async def test_a_model_of_half_precision_is_rolled_out_in_single():
    case = attended.case("gpt2")
    found = await case.ask("attention-rollout", case.make(dtype=torch.bfloat16))
    np.testing.assert_allclose(found.scores, case.scores(reference(case)), atol=0.02)


async def test_layers_without_attention_are_refused():
    torch.manual_seed(0)
    config = transformers.Qwen3NextConfig(
        vocab_size=384, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, intermediate_size=64, moe_intermediate_size=16,
        num_experts=2, num_experts_per_tok=1, shared_expert_intermediate_size=16,
        linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=8,
        linear_value_head_dim=8, layer_types=["linear_attention", "full_attention"],
        mlp_only_layers=[0, 1], bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    model = transformers.Qwen3NextForCausalLM(config).eval()
    case = attended.case("gpt2")
    for method in ("attention-rollout", "value-zeroing", "atman"):
        with pytest.raises(CapabilityError, match="2 layers"):
            await case.ask(method, model)


@pytest.mark.parametrize(
    "options", [{"layer": -1}, {"function": "logit"}, {"level": 0}, {"aggregation": "median"}]
)
def test_options_that_mean_nothing(options):
    with pytest.raises(ConfigError):
        AttentionRollout(**options)
