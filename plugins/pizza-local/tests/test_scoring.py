# SPDX-License-Identifier: Apache-2.0
"""Both engines against one plain forward pass per item."""

import logging
import random
import threading

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from pizza_local.chunks import Chunks, Stopped  # noqa: E402
from pizza_local.counts import Counts  # noqa: E402
from pizza_local.scoring import CausalScorer, Item, trie_size  # noqa: E402
from pizza_local.scoring.activation import fused  # noqa: E402
from pizza_local.scoring.architecture import Architecture  # noqa: E402
from pizza_local.scoring.packed import Packing, score_packed  # noqa: E402
from pizza_local.scoring.padded import score_padded  # noqa: E402
from support import tiny  # noqa: E402

SHAPE = {
    "num_hidden_layers": 3, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 384, "max_position_embeddings": 128,
    "initializer_range": 0.25, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip


def made(config, cls, dtype=torch.float64):
    torch.manual_seed(0)
    return cls(config).eval().to(dtype)


def gemma3():
    config = transformers.Gemma3TextConfig(
        **SHAPE,
        head_dim=8,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )
    return made(config, transformers.Gemma3ForCausalLM)


def longrope():
    """Changes its frequencies, of all tokens, in sequences of more than 8."""
    rope = {
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4,
        "long_factor": [2.0, 3.0, 4.0, 5.0], "original_max_position_embeddings": 8, "factor": 16.0,
    }  # fmt: skip
    return tiny.llama(rope_parameters=rope)


def bloom():
    config = transformers.BloomConfig(
        vocab_size=384, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.25
    )
    return made(config, transformers.BloomForCausalLM)


def lfm2():
    """Has convolutions over neighbouring positions."""
    config = transformers.Lfm2Config(
        **SHAPE, block_multiple_of=8, layer_types=["conv", "full_attention", "conv"]
    )
    return made(config, transformers.Lfm2ForCausalLM)


PACKED = {
    "gpt2": tiny.gpt2,
    "gpt2-eager": lambda: tiny.gpt2(attn_implementation="eager"),
    "llama": tiny.llama,
    "mistral": lambda: tiny.decoder("Mistral", sliding_window=5).double(),
    "qwen2": lambda: tiny.decoder("Qwen2").double(),
    "qwen2-window": lambda: tiny.decoder(
        "Qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1
    ).double(),
    "qwen3": lambda: tiny.decoder("Qwen3").double(),
    "gemma": lambda: tiny.decoder("Gemma").double(),
    "gemma2": lambda: tiny.decoder("Gemma2", sliding_window=4).double(),
    "gemma3": gemma3,
}
PADDED = {"bloom": bloom, "lfm2": lfm2, "longrope": longrope}
# Their eager attention computes weights in single precision, of doubles too.
ROUNDED = {"gpt2-eager": 1e-9, "gemma2": 1e-5}


def logprobs_of(model, item):
    """One plain forward pass: ``(T, V)`` log-probabilities where the target is predicted."""
    with torch.no_grad():
        logits = model(torch.tensor([item.sequence])).logits[0]
    first = len(item.prompt) - 1
    wanted = logits[first:]
    return torch.log_softmax(wanted.to(torch.promote_types(wanted.dtype, torch.float32)), -1)


def expected_of(model, item):
    table = logprobs_of(model, item)
    return table[torch.arange(len(item.target)), torch.tensor(item.target)].double().numpy()


def drawn(seed, n=25, longest=24):
    """Perturbed copies of one sequence; with duplicates, prefixes, single tokens."""
    rng = random.Random(seed)
    base = [rng.randrange(384) for _ in range(longest)]
    found = []
    for _ in range(n):
        tokens = list(base)
        for _ in range(rng.randrange(3)):
            tokens[rng.randrange(len(tokens))] = rng.randrange(384)
        for _ in range(rng.randrange(3)):
            del tokens[rng.randrange(len(tokens))]
        tokens = tokens[: rng.randint(2, len(tokens))]
        cut = rng.randint(1, len(tokens) - 1)
        found.append(Item(prompt=tuple(tokens[:cut]), target=tuple(tokens[cut:])))
    whole, single = tuple(base), tuple(base[:2])
    found.append(Item(prompt=whole[:-1], target=whole[-1:]))
    found.append(Item(prompt=whole[:5], target=whole[5:9]))
    found.append(Item(prompt=single[:1], target=single[1:]))
    return [*found, found[0], found[0]]


def scorer_of(model):
    return CausalScorer(model, Chunks(torch.device("cpu")))


def packed(model, items, packing, chunks=None, counts=None, stop=None, top=0):
    chunks = chunks or Chunks(torch.device("cpu"))
    facts = Architecture.of(model)
    return score_packed(model, facts, chunks, items, top, counts or Counts(), stop, packing)


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("seed", [0, 1])
def test_packed_scores_are_those_of_one_pass_per_item(name, seed):
    model, items, counts = PACKED[name](), drawn(seed), Counts()
    scorer = scorer_of(model)

    found = scorer.score(items, counts=counts)

    assert scorer.engine == "packed"
    assert counts.forward_tokens == trie_size(items)
    for item, scored in zip(items, found, strict=True):
        np.testing.assert_allclose(
            scored.logprobs, expected_of(model, item), rtol=ROUNDED.get(name, 1e-9), atol=1e-12
        )


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("most", [1, 2, 3, 7, 16, 10_000])
@pytest.mark.parametrize("name", ["gpt2", "mistral", "gemma2", "gemma3"])
def test_a_pass_may_end_anywhere(name, most, dense):
    model, items, counts = PACKED[name](), drawn(2, n=8), Counts()

    found = packed(model, items, Packing(most=most, dense=dense), counts=counts)

    assert counts.forward_tokens == trie_size(items)
    assert counts.forward_passes == -(-trie_size(items) // min(most, trie_size(items)))
    for item, scored in zip(items, found, strict=True):
        np.testing.assert_allclose(
            scored.logprobs, expected_of(model, item), rtol=ROUNDED.get(name, 1e-9), atol=1e-12
        )


@pytest.mark.parametrize("window", [None, 300])
def test_sequences_longer_than_a_block_of_queries(window):
    changes = {"max_position_embeddings": 1024, "initializer_range": 0.1}
    if window:
        model = tiny.decoder("Mistral", sliding_window=window, **changes).double()
    else:
        model = tiny.llama(**changes)
    rng = random.Random(5)
    tokens = tuple(rng.randrange(384) for _ in range(700))
    items = [
        Item(prompt=tokens[:690], target=tokens[690:]),
        Item(prompt=(*tokens[:350], 7, *tokens[351:690]), target=tokens[690:]),
    ]
    for dense in (False, True):
        for item, scored in zip(
            items, packed(model, items, Packing(most=600, dense=dense)), strict=True
        ):
            np.testing.assert_allclose(scored.logprobs, expected_of(model, item), rtol=1e-9)


@pytest.mark.parametrize("name", PADDED)
def test_what_cannot_be_packed_is_padded(name):
    model, items = PADDED[name](), drawn(3)
    scorer = scorer_of(model)
    assert scorer.engine == "padded"

    found = scorer.score(items, counts=Counts())

    for item, scored in zip(items, found, strict=True):
        np.testing.assert_allclose(scored.logprobs, expected_of(model, item), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["gpt2", "mistral", "gemma3"])
def test_padded_scores_are_those_of_one_pass_per_item(name):
    model, items, counts = PACKED[name](), drawn(4), Counts()
    chunks = Chunks(torch.device("cpu"))

    found = score_padded(model, Architecture.of(model), chunks, items, 2, counts, None)

    distinct = {item.sequence for item in items}
    assert sum(map(len, distinct)) <= counts.forward_tokens <= 2 * sum(map(len, distinct))
    for item, scored in zip(items, found, strict=True):
        np.testing.assert_allclose(scored.logprobs, expected_of(model, item), rtol=1e-9, atol=1e-12)
        assert scored.top_tokens.shape == (len(item.target), 2)


@pytest.mark.parametrize("name", ["gpt2", "bloom"])
def test_alternatives_are_the_most_likely_tokens(name):
    model, items = (PACKED | PADDED)[name](), drawn(6, n=6)

    for item, scored in zip(
        items, scorer_of(model).score(items, top=5, counts=Counts()), strict=True
    ):
        best = logprobs_of(model, item).topk(5, dim=-1)
        np.testing.assert_array_equal(scored.top_tokens, best.indices.numpy())
        np.testing.assert_allclose(scored.top_logprobs, best.values.numpy(), rtol=1e-9)


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_logits_of_a_model_on_several_devices_are_selected_afterwards(name):
    """Selecting within the model would need an index on the device of its head."""
    model, items, counts = (PACKED | PADDED)[name](), drawn(20), Counts()
    model.hf_device_map = {"first": 0, "last": 1}
    asked = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: asked.append("logits_to_keep" in kwargs), with_kwargs=True
    )

    found = scorer_of(model).score(items, counts=counts)

    assert len(asked) > 1
    assert not any(asked)
    assert (counts.forward_tokens == trie_size(items)) == (name == "llama")
    for item, scored in zip(items, found, strict=True):
        np.testing.assert_allclose(scored.logprobs, expected_of(model, item), rtol=1e-9, atol=1e-12)


def test_no_alternatives_unless_asked():
    item = Item(prompt=(5, 6), target=(7, 8, 9))
    scorer = scorer_of(tiny.gpt2())
    (scored,) = scorer.score([item], counts=Counts())
    assert scored.top_tokens.shape == scored.top_logprobs.shape == (3, 0)
    assert scorer.score([], counts=Counts()) == []
    with pytest.raises(ValueError, match="top=385"):
        scorer.score([item], top=385, counts=Counts())


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", ["gpt2", "mistral", "bloom"])
def test_a_score_does_not_depend_on_company(name, dtype, rtol):
    model, items = (PACKED | PADDED)[name]().to(dtype), drawn(7, n=50)
    scorer = scorer_of(model)

    together = scorer.score(items, counts=Counts())

    for item, scored in zip(items, together, strict=True):
        (alone,) = scorer.score([item], counts=Counts())
        np.testing.assert_allclose(scored.logprobs, alone.logprobs, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", ["gpt2", "mistral", "gemma2"])
def test_single_precision(name):
    model, items = PACKED[name]().float(), drawn(8)
    scorer = scorer_of(model)
    found = scorer.score(items, counts=Counts())
    assert scorer.engine == "packed"
    for item, scored in zip(items, found, strict=True):
        np.testing.assert_allclose(scored.logprobs, expected_of(model, item), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_half_precision_is_packed_and_read_in_single(name):
    model, items = PACKED[name]().bfloat16(), drawn(9)
    scorer = scorer_of(model)
    found = scorer.score(items, counts=Counts())
    assert scorer.engine == "packed"
    apart = np.concatenate(
        [
            scored.logprobs - expected_of(model, item)
            for item, scored in zip(items, found, strict=True)
        ]
    )
    assert np.sqrt(np.mean(apart**2)) < 0.1
    # A log-probability that was rounded to half precision would be one of few values.
    scored = np.concatenate([one.logprobs for one in found])
    assert (scored != torch.tensor(scored).bfloat16().double().numpy()).mean() > 0.9


def test_leaving_one_out_computes_the_trie_exactly():
    rng = random.Random(10)
    prompt = tuple(rng.randrange(384) for _ in range(20))
    target = (3, 4, 5)
    scorer = scorer_of(tiny.llama())
    for replacement in ((), (9,)):
        items = [Item(prompt=prompt, target=target)] + [
            Item(prompt=prompt[:i] + replacement + prompt[i + 1 :], target=target)
            for i in range(20)
        ]
        counts = Counts()
        scorer.score(items, counts=counts)
        assert counts.forward_tokens == trie_size(items) < sum(len(i.sequence) for i in items)


def bounded(limit):
    """A hook on a model that runs out of memory when a pass has more tokens."""

    def refuse(module, args, kwargs):
        if kwargs["input_ids"].numel() > limit:
            raise torch.OutOfMemoryError(f"{kwargs['input_ids'].numel()} tokens do not fit")

    return refuse


@pytest.mark.parametrize("name", ["gpt2", "mistral", "bloom"])
def test_out_of_memory_halves_the_passes(name, caplog):
    model, items, counts = (PACKED | PADDED)[name](), drawn(11), Counts()
    scorer = scorer_of(model)
    model.register_forward_pre_hook(bounded(30), with_kwargs=True)

    found = scorer.score(items, counts=counts)

    assert "out of memory" in caplog.text
    if scorer.engine == "packed":
        assert counts.forward_tokens == trie_size(items)
        assert counts.forward_passes > trie_size(items) / 30
    for item, scored in zip(items, found, strict=True):
        expected = logprobs_of(unhooked(model), item)
        places = torch.arange(len(item.target))
        np.testing.assert_allclose(
            scored.logprobs, expected[places, torch.tensor(item.target)], rtol=1e-9, atol=1e-12
        )


def unhooked(model):
    model._forward_pre_hooks.clear()
    return model


def test_out_of_memory_within_a_pass_leaves_what_is_carried_intact():
    """The first layers of a failed pass have already attended when the last one fails."""
    model, items, counts = tiny.gpt2(), drawn(12), Counts()
    wanted = [expected_of(model, item) for item in items]

    def refuse(module, args, output):
        if output[0].shape[-2] > 9:
            raise torch.OutOfMemoryError("does not fit")

    model.transformer.h[-1].attn.register_forward_hook(refuse)
    found = packed(model, items, Packing(most=40, dense=False), counts=counts)

    assert counts.forward_tokens == trie_size(items)
    for expected, scored in zip(wanted, found, strict=True):
        np.testing.assert_allclose(scored.logprobs, expected, rtol=1e-9, atol=1e-12)


def test_a_pass_that_never_fits_is_an_error():
    model = tiny.gpt2()
    model.register_forward_pre_hook(bounded(0), with_kwargs=True)
    with pytest.raises(torch.OutOfMemoryError):
        scorer_of(model).score(drawn(13), counts=Counts())


def test_a_caller_that_went_away_is_not_computed_for():
    model, stop, counts = tiny.gpt2(), threading.Event(), Counts()
    passes = []

    def leave(module, args, kwargs):
        passes.append(kwargs["input_ids"].shape[1])
        if len(passes) == 3:
            stop.set()

    model.register_forward_pre_hook(leave, with_kwargs=True)
    with pytest.raises(Stopped):
        packed(model, drawn(14), Packing(most=10, dense=False), counts=counts, stop=stop)
    assert len(passes) == counts.forward_passes == 3
    assert counts.forward_tokens == sum(passes)

    fresh = scorer_of(model)
    with pytest.raises(Stopped):
        fresh.score(drawn(14), counts=counts, stop=stop)
    assert fresh.engine == "packed"
    assert counts.forward_passes == 3


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_attention_of_the_model_is_put_back(implementation):
    model = tiny.llama(attn_implementation=implementation)
    items, ids = drawn(15), torch.tensor([[1, 2, 3, 4]])
    plain = model(ids).logits
    scorer = scorer_of(model)

    scorer.score(items, counts=Counts())
    assert model.config._attn_implementation == implementation
    assert torch.equal(model(ids).logits, plain)

    def fail(module, args, output):
        raise LookupError("in the middle of a pass")

    hook = model.model.layers[1].register_forward_hook(fail)
    with pytest.raises(LookupError):
        scorer.score(items, counts=Counts())
    hook.remove()
    assert model.config._attn_implementation == implementation
    assert torch.equal(model(ids).logits, plain)


def test_configs_within_configs_are_put_back_one_by_one():
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            image_size=8, patch_size=4,
        ),
        text_config=transformers.LlamaConfig(**SHAPE),
    )  # fmt: skip
    model = made(config, transformers.LlavaForConditionalGeneration)
    model.set_attn_implementation({"vision_config": "sdpa", "text_config": "eager"})
    kinds = [c._attn_implementation for c in (config, config.text_config, config.vision_config)]
    items, scorer = drawn(16), scorer_of(model)

    found = scorer.score(items, counts=Counts())

    assert scorer.engine == "packed"
    assert kinds[1:] == ["eager", "sdpa"]
    assert kinds == [
        c._attn_implementation for c in (config, config.text_config, config.vision_config)
    ]
    for item, scored in zip(items, found, strict=True):
        np.testing.assert_allclose(scored.logprobs, expected_of(model, item), rtol=1e-5)


def mixing(module, args, output):
    """What a convolution does: each position takes something from the one before it."""
    return output + torch.nn.functional.pad(output, (0, 0, 1, 0))[..., :-1, :]


def test_a_model_that_packing_serves_wrongly_is_found_out(caplog):
    model, items, counts = tiny.llama(), drawn(17), Counts()
    model.model.layers[1].mlp.register_forward_hook(mixing)
    scorer = scorer_of(model)
    assert scorer.engine == "packed"

    with caplog.at_level(logging.WARNING, logger="pizza.local"):
        found = scorer.score(items, counts=counts)
        scorer.score(items, counts=Counts())

    assert scorer.engine == "padded"
    assert [record.name for record in caplog.records] == ["pizza.local"]
    assert "differ by" in caplog.text
    for item, scored in zip(items, found, strict=True):
        np.testing.assert_allclose(scored.logprobs, expected_of(model, item), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("item", [Item(prompt=(5,), target=(6,)), Item(prompt=(5,), target=(5, 5))])
def test_even_one_item_that_never_parts_finds_it_out(item):
    model = tiny.gpt2()
    model.transformer.h[0].mlp.register_forward_hook(mixing)
    scorer = scorer_of(model)
    (scored,) = scorer.score([item], counts=Counts())
    assert scorer.engine == "padded"
    np.testing.assert_allclose(scored.logprobs, expected_of(model, item), rtol=1e-9, atol=1e-12)


def test_attention_that_packing_does_not_know_is_found_out(caplog):
    """GPT-OSS lets each head attend to nothing, through a learned sink."""
    config = transformers.GptOssConfig(
        **SHAPE, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=4,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )  # fmt: skip
    model = made(config, transformers.GptOssForCausalLM, torch.float32)
    scorer, items = scorer_of(model), drawn(18)

    found = scorer.score(items, counts=Counts())

    assert scorer.engine == "padded"
    assert "s_aux" in caplog.text
    for item, scored in zip(items, found, strict=True):
        np.testing.assert_allclose(scored.logprobs, expected_of(model, item), rtol=1e-4, atol=1e-5)


# --- the activation -----------------------------------------------------------------------------


def test_the_activation_is_fused_inside_of_a_pass_and_as_it_was_outside():
    model = tiny.gpt2()
    act = model.transformer.h[0].mlp.act
    assert type(act).__name__ == "NewGELUActivation"
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    written_out = act(x)
    with fused(model):
        assert "forward" in vars(act)
        assert torch.allclose(act(x), written_out, rtol=1e-12, atol=1e-15)
    assert "forward" not in vars(act)
    with pytest.raises(RuntimeError, match="stop"), fused(model):
        raise RuntimeError("stop")
    assert "forward" not in vars(act)


def test_an_activation_that_somebody_changed_is_left_alone():
    model = tiny.gpt2()
    act = model.transformer.h[1].mlp.act
    act.forward = mine = lambda x: x
    with fused(model):
        assert act.forward is mine
    assert act.forward is mine
