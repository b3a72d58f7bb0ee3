# SPDX-License-Identifier: Apache-2.0
"""What is wrong is said, with what to do; what can be saved is saved."""

import json
import logging

import numpy as np
import pytest
from support import tiny

import pizza
from pizza.errors import (
    BadRequestError,
    CapabilityError,
    ConfigError,
    ContextTooLongError,
    NonFiniteError,
)

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from pizza_local import LocalBackend  # noqa: E402

PROMPT = "Ana has 3 red apples"


async def explain(model, tokenizer, prompt=PROMPT, *, backend=None, **options):
    async with pizza.Session(LocalBackend(model, tokenizer, **backend or {})) as session:
        return await session.attribute(prompt, **options)


# --- a model and a tokenizer that do not fit ----------------------------------------------------


def test_the_tokenizer_of_another_model_is_refused():
    with pytest.raises(ConfigError, match=r"ids up to 383.*embeds only 100.*another model"):
        LocalBackend(tiny.gpt2(vocab_size=100), tiny.byte_tokenizer())


def test_a_tokenizer_that_ends_texts_otherwise_is_pointed_out(caplog):
    with caplog.at_level(logging.WARNING, logger="pizza.local"):
        LocalBackend(tiny.gpt2(eos_token_id=7), tiny.byte_tokenizer())
    assert "eos_token_id is 1 in the tokenizer and 7" in caplog.text


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ConfigError, match="fast tokenizer"):
        LocalBackend(tiny.gpt2(), Slow())


def test_a_module_that_is_no_model_of_transformers_is_told_the_way():
    with pytest.raises(CapabilityError, match=r"from_features or LocalBackend\.from_embeddings"):
        LocalBackend(torch.nn.Linear(2, 2), tiny.byte_tokenizer())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"problem_type": "multi_label_classification"}, "several labels at once"),
        ({"num_labels": 1, "id2label": {0: "score"}}, "a regression with one output"),
    ],
)
def test_a_head_that_chooses_no_label_is_refused(config, message):
    with pytest.raises(CapabilityError, match=message):
        LocalBackend(tiny.bert_classifier(**config), tiny.word_tokenizer())


def test_a_model_without_a_head_is_told_which_kinds_there_are():
    model = tiny.gpt2().transformer
    with pytest.raises(CapabilityError, match=r"is a GPT2Model.*causal language model"):
        LocalBackend(model, tiny.byte_tokenizer())


# --- training mode ------------------------------------------------------------------------------


async def test_a_model_in_training_mode_is_evaluated_and_put_back(caplog):
    model, tokenizer = tiny.gpt2(resid_pdrop=0.5, embd_pdrop=0.5), tiny.byte_tokenizer()
    expected = await explain(model, tokenizer, target=" red")
    model.train()
    model.transformer.h[1].eval()
    modes = [m.training for m in model.modules()]
    with caplog.at_level(logging.INFO, logger="pizza.local"):
        found = await explain(model, tokenizer, target=" red")
    assert [m.training for m in model.modules()] == modes
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-9)
    assert "was in training mode; it is in evaluation mode until closed" in caplog.text
    assert "is in training mode again" in caplog.text


@pytest.mark.parametrize("method", ["saliency", "integrated-gradients", "leave-one-out"])
@pytest.mark.parametrize("stacked", [False, True])
async def test_a_model_is_left_as_it_was(method, stacked):
    model, tokenizer = tiny.gpt2(), tiny.byte_tokenizer()
    model.transformer.wte.weight.requires_grad_(False)
    wanted = [p.requires_grad for p in model.parameters()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    await explain(model, tokenizer, method=method, target=" red", backend={"stacked": stacked})
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


# --- targets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["leave-one-out", "saliency"])
async def test_a_target_that_the_vocabulary_cannot_say(method):
    with pytest.raises(BadRequestError, match="cannot say the target '東京'"):
        await explain(
            tiny.bert_mlm(),
            tiny.word_tokenizer(),
            "the [MASK] is red",
            method=method,
            target="東京",
        )


def test_an_empty_target_is_refused_before_anything_is_opened():
    with pytest.raises(ConfigError, match="empty"):
        pizza.Target.given("")
    with pytest.raises(ConfigError, match="no token ids"):
        pizza.Target.tokens([])


@pytest.mark.parametrize("method", ["leave-one-out", "saliency"])
async def test_ids_that_are_in_no_vocabulary(method):
    with pytest.raises(BadRequestError, match=r"token id 999.* ids from 0 to 383"):
        await explain(
            tiny.gpt2(), tiny.byte_tokenizer(), method=method, target=pizza.Target.tokens([5, 999])
        )


@pytest.mark.parametrize("method", ["leave-one-out", "integrated-gradients"])
async def test_an_output_cut_inside_a_character_is_explained(method):
    tokenizer = tiny.byte_tokenizer()
    ids = tokenizer("a 東")["input_ids"]
    cut = ids[:-1]
    assert "\ufffd" in tokenizer.decode(cut)
    found = await explain(tiny.gpt2(), tokenizer, method=method, target=pizza.Target.tokens(cut))
    assert found.output.token_ids == tuple(cut)
    assert found.output.tokens[-1].endswith("\\x9d")
    assert np.isfinite(found.scores).all()
    # Saved and read again, nothing is lost.
    again = pizza.Attribution.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.output.token_ids == found.output.token_ids
    assert again.output.tokens == found.output.tokens


@pytest.mark.parametrize("method", ["leave-one-out", "saliency"])
async def test_a_generation_cut_inside_a_character_is_explained(method):
    # This model writes pieces of characters.
    found = await explain(
        tiny.gpt2(),
        tiny.byte_tokenizer(),
        "Ana has 3 red apples. How many?",
        method=method,
        generation=pizza.Generation(max_tokens=4),
    )
    assert any("\\x" in token for token in found.output.tokens)
    assert len(found.output.token_ids) == 4
    assert np.isfinite(found.scores).all()


# --- too long -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["leave-one-out", "saliency"])
async def test_a_prompt_longer_than_the_context(method):
    with pytest.raises(ContextTooLongError, match="reads at most 128: shorten") as caught:
        await explain(
            tiny.gpt2(), tiny.byte_tokenizer(), PROMPT + " red" * 200, method=method, target=" red"
        )
    assert caught.value.limit == 128
    assert caught.value.got > 128


# --- numbers that are none ----------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["leave-one-out", "saliency", "integrated-gradients"])
@pytest.mark.parametrize("target", [" red", None])
async def test_weights_that_are_no_numbers_name_their_layer(bad, method, target):
    model = tiny.gpt2()
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[0, 0] = bad
    with pytest.raises(NonFiniteError, match=r"transformer\.h\.1\.mlp\.c_fc.*dtype=float32"):
        await explain(
            model,
            tiny.byte_tokenizer(),
            method=method,
            target=target,
            generation=pizza.Generation(max_tokens=2),
        )


async def test_embeddings_that_are_no_numbers_are_named():
    model = tiny.gpt2()
    with torch.no_grad():
        model.transformer.wte.weight[:] = float("nan")
    with pytest.raises(NonFiniteError, match="input embeddings are not finite"):
        await explain(model, tiny.byte_tokenizer(), method="saliency", target=" red")


@pytest.mark.parametrize("make", [tiny.t5, tiny.bert_classifier, tiny.bert_mlm])
async def test_every_kind_refuses_numbers_that_are_none(make):
    model = make()
    words = make is not tiny.t5
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    with torch.no_grad():
        weights[len(weights) // 2].view(-1)[0] = float("nan")
    prompt = "the [MASK] is red" if make is tiny.bert_mlm else PROMPT
    tokenizer = tiny.word_tokenizer() if words else tiny.byte_tokenizer()
    for method in ("leave-one-out", "saliency"):
        with pytest.raises(NonFiniteError, match="NaN"):
            await explain(model, tokenizer, prompt, method=method)


# --- methods that do not fit --------------------------------------------------------------------


async def test_a_layer_that_is_not_there():
    with pytest.raises(CapabilityError, match=r"no layer 9.*layers 0 .* to 3"):
        await explain(tiny.gpt2(), tiny.byte_tokenizer(), method="saliency:layer=9", target=" red")


async def test_gradients_of_a_model_that_has_none_name_what_works():
    async with pizza.Session("embedded") as session:
        with pytest.raises(CapabilityError, match="gradients") as caught:
            await session.attribute(PROMPT, method="saliency", target=" red")
    assert "local" in str(caught.value)


async def test_metrics_mean_nothing_to_a_method_that_looks_inside():
    with pytest.raises(ConfigError, match="compares no outputs"):
        await explain(tiny.gpt2(), tiny.byte_tokenizer(), method="saliency", metrics="prob-diff")


async def test_a_baseline_that_the_tokenizer_does_not_have():
    with pytest.raises(ConfigError, match=r"no mask token.*'zero', 'mean', 'pad'"):
        await explain(
            tiny.gpt2(),
            tiny.byte_tokenizer(),
            method="integrated-gradients:baseline=mask",
            target=" red",
        )
