# SPDX-License-Identifier: Apache-2.0
"""Value zeroing is what a forward pass for each layer and token finds, one hook at a time."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from pizza_local.attending.zeroing import distance  # noqa: E402
from pizza_local.methods.value_zeroing import ValueZeroing  # noqa: E402
from support import attended, tiny  # noqa: E402

import pizza  # noqa: E402
from pizza.errors import CapabilityError, ConfigError  # noqa: E402


def parts(kind, model):
    """Layers, the module that makes the values of each, and where the final norm's output is."""
    if kind == "gpt2":
        return model.transformer.h, [b.attn.c_attn for b in model.transformer.h], model.transformer
    if kind == "t5":
        blocks = model.decoder.block
        return blocks, [b.layer[1].EncDecAttention.v for b in blocks], model.decoder
    if kind == "bart":
        blocks = model.model.decoder.layers
        return blocks, [b.encoder_attn.v_proj for b in blocks], model.model.decoder
    if kind == "llama":
        return model.model.layers, [b.self_attn.v_proj for b in model.model.layers], model.model
    blocks = model.bert.encoder.layer
    return blocks, [b.attention.self.value for b in blocks], model.bert


def state_after(case, model, layer, zeroed):
    """What leaves a layer when one token's values are zero in it alone."""
    blocks, makers, backbone = parts(case.kind, model)
    seen = []

    def zero(_, __, output):
        output = output.clone()
        start = 2 * output.shape[-1] // 3 if case.kind == "gpt2" else 0
        output[:, zeroed, start:] = 0
        return output

    def look(_, __, output):
        if hasattr(output, "last_hidden_state"):
            seen.append(output.last_hidden_state[0])
        else:
            seen.append((output[0] if isinstance(output, tuple) else output)[0])

    place = backbone if layer == len(blocks) - 1 else blocks[layer]
    handles = [place.register_forward_hook(look)]
    if zeroed is not None:
        handles.append(makers[layer].register_forward_hook(zero))
    with torch.no_grad():
        model(**case.inputs())
    for handle in handles:
        handle.remove()
    return seen[0]


def reference(case, model=None):
    """Normalised changes ``(layers, positions, tokens)``; a pass for each layer and token."""
    model = case.make() if model is None else model
    n_layers = len(parts(case.kind, model)[0])
    n = case.inputs()["input_ids"].shape[1]
    layers = []
    for layer in range(n_layers):
        clean = state_after(case, model, layer, None)
        columns = [
            1 - torch.cosine_similarity(clean, state_after(case, model, layer, j), dim=-1)
            for j in range(n)
        ]
        changed = torch.stack(columns, dim=1)
        layers.append(changed / changed.sum(1, keepdim=True))
    return torch.stack(layers)


# transformers computes norms of Llama and T5, and Llama's softmax, in single precision.
TOLERANCE = {
    "gpt2": 1e-9,
    "bart": 1e-9,
    "bert-classifier": 1e-9,
    "bert-mlm": 1e-9,
    "llama": 1e-5,
    "t5": 1e-5,
}


@pytest.mark.parametrize("kind", [*attended.KINDS, "bart"])
async def test_scores_are_those_of_one_hook_at_a_time(kind):
    case = attended.case(kind)
    found = await case.ask("value-zeroing")
    expected = reference(case).mean(0)[case.readers()]
    np.testing.assert_allclose(
        found.scores, case.scores(expected), rtol=TOLERANCE[kind], atol=TOLERANCE[kind]
    )
    assert found.metric == "value-zeroing"
    assert (found.scores > 0).any()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert-classifier", "bert-mlm"])
async def test_rollout_multiplies_the_layers(kind):
    case = attended.case(kind)
    found = await case.ask(ValueZeroing(combine="rollout"))
    whole = torch.linalg.multi_dot([*reversed(reference(case))])
    np.testing.assert_allclose(
        found.scores,
        case.scores(whole[case.readers()]),
        rtol=TOLERANCE[kind],
        atol=TOLERANCE[kind],
    )


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
async def test_every_token_is_a_forward_and_the_clean_one_another(kind):
    case = attended.case(kind)
    whole = await case.ask("value-zeroing")
    found = await case.ask("value-zeroing", chunk=3)
    np.testing.assert_allclose(found.scores, whole.scores, rtol=1e-5, atol=1e-9)
    n_read = len(case.ids) + (len(case.output) if kind == "t5" else len(case.output) - 1)
    n_zeroed = len(case.ids) if kind == "t5" else n_read
    for each, passes in ((whole, 2), (found, 1 + -(-n_zeroed // 3))):
        counted = each.provenance["method"]["details"]["passes"]
        assert counted["forward_passes"] == passes
        assert counted["forward_tokens"] == n_read * (1 + n_zeroed)
        assert counted["backward_passes"] == 0


async def test_windows_of_attention_are_respected():
    case = attended.case("gpt2")
    model = tiny.decoder("Mistral", sliding_window=3).double()
    found = await case.ask("value-zeroing", model)
    # One layer sees 3 tokens: with 3 layers the first output token sees the last 3 in each.
    first = found.scores[1]
    assert (first[:-3] == 0).all()
    assert (first[-3:] > 0).all()


async def test_single_precision_agrees_with_double():
    case = attended.case("gpt2")
    found = await case.ask("value-zeroing", case.make(dtype=torch.float32))
    expected = reference(case).mean(0)[case.readers()]
    np.testing.assert_allclose(found.scores, case.scores(expected), rtol=1e-4, atol=1e-6)


def test_small_distances_keep_their_digits_in_single_precision():
    torch.manual_seed(0)
    one = torch.randn(64, dtype=torch.float64)
    other = one + 1e-5 * torch.randn(64, dtype=torch.float64)
    exact = distance(one, other)
    torch.testing.assert_close(
        exact, 1 - torch.cosine_similarity(one, other, dim=0), rtol=1e-4, atol=0
    )
    rough = distance(one.float(), other.float()).double()
    assert abs(rough - exact) < 0.1 * exact


async def test_a_contrast_is_the_difference_of_the_means():
    case = attended.case("gpt2")
    found = await case.ask(
        "value-zeroing", target=pizza.Target.contrast(case.target, " green pears")
    )
    own = await case.ask("value-zeroing")
    other = await case.ask("value-zeroing", target=" green pears")
    np.testing.assert_allclose(found.scores[0], own.scores[0] - other.scores[0], atol=1e-12)
    np.testing.assert_allclose(found.scores[1:], own.scores[1:], atol=1e-12)


async def test_encoder_decoders_have_no_rollout():
    case = attended.case("t5")
    with pytest.raises(CapabilityError, match="combine='mean'"):
        await case.ask(ValueZeroing(combine="rollout"))


async def test_models_with_attention_of_their_own_are_refused():
    torch.manual_seed(0)
    config = transformers.GPTNeoConfig(
        vocab_size=384, hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=128,
        attention_types=[[["global", "local"], 1]], window_size=4, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = transformers.GPTNeoForCausalLM(config).eval()
    case = attended.case("gpt2")
    for method in ("value-zeroing", "atman"):
        with pytest.raises(CapabilityError, match="2 layers") as caught:
            await case.ask(method, model)
        assert "saliency" in caught.value.alternatives


@pytest.mark.parametrize("options", [{"combine": "sum"}, {"layer": 1}, {"function": "logprob"}])
def test_options_that_mean_nothing(options):
    with pytest.raises(ConfigError):
        ValueZeroing(**options)
