# SPDX-License-Identifier: Apache-2.0
"""`LocalBackend` as the core uses it: a round is a batch, an identity, a vocabulary, counts."""

import json

import numpy as np
import pytest
from support import tiny

import pizza
from pizza.capability import Capability

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from pizza_local import LocalBackend  # noqa: E402

PROMPT = "Ana has 3 red apples and Bob has 5 green pears. How many?"


class Watched(LocalBackend):
    """Writes down the size of every batch."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.batches = []

    async def answer_batch(self, requests):
        self.batches.append(len(requests))
        async for item in super().answer_batch(requests):
            yield item


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("method", ["leave-one-out", "sliding-window:size=2,stride=1"])
async def test_a_round_of_coalitions_is_one_batch(tmp_path, cached, method):
    backend = Watched(tiny.gpt2(), tiny.byte_tokenizer())
    cache = tmp_path / "cache.sqlite" if cached else None
    async with pizza.Session(backend, cache=cache) as session:
        result = await session.attribute(PROMPT, target=" red", method=method)
    n = len(result.evaluations)
    assert n >= 11
    # The reference, then everything else.
    assert backend.batches == [1, n]
    if not cached:
        return
    again = Watched(tiny.gpt2(), tiny.byte_tokenizer())
    async with pizza.Session(again, cache=cache) as session:
        repeated = await session.attribute(PROMPT, target=" red", method=method)
    assert again.batches == []
    assert repeated.calls == 0
    np.testing.assert_array_equal(repeated.scores, result.scores)


async def test_rounds_of_an_adaptive_method_are_batches():
    backend = Watched(tiny.gpt2(), tiny.byte_tokenizer())
    async with pizza.Session(backend) as session:
        result = await session.attribute(PROMPT, target=" red", method="hierarchical")
    assert sum(backend.batches) == 1 + len(result.evaluations)
    assert len(backend.batches) < len(result.evaluations)
    assert max(backend.batches) >= 4


async def test_identity_tells_models_apart_and_recognises_the_same():
    def identity(model, tokenizer=None, **options):
        return LocalBackend(model, tokenizer or tiny.byte_tokenizer(), **options).identity

    same = identity(tiny.gpt2())
    assert identity(tiny.gpt2(), name="another name") == same
    changed = tiny.gpt2()
    with torch.no_grad():
        changed.transformer.h[2].mlp.c_proj.weight.add_(1e-6)
    others = {
        identity(tiny.gpt2(seed=1)),
        identity(tiny.gpt2(torch.float32)),
        identity(tiny.gpt2(n_head=2)),
        identity(changed),
        identity(tiny.gpt2(), tiny.byte_tokenizer(bos=True)),
        identity(tiny.gpt2(), tiny.byte_tokenizer(chat=True)),
        identity(tiny.gpt2(), tiny.byte_tokenizer(chat=True), chat=False),
    }
    assert len(others) == 7
    assert same not in others


async def test_capabilities_are_those_of_the_kind():
    writes = LocalBackend(tiny.gpt2(), tiny.byte_tokenizer()).capabilities
    chooses = LocalBackend(tiny.bert_classifier(), tiny.word_tokenizer()).capabilities
    assert {Capability.GRADIENTS, Capability.SCORE, Capability.ALTERNATIVES} <= writes
    assert chooses - writes == {Capability.CLASSIFY}


async def test_the_vocabulary_has_the_models_embeddings():
    model, tokenizer = tiny.gpt2(), tiny.byte_tokenizer()
    table = LocalBackend(model, tokenizer).token_table
    weight = model.get_input_embeddings().weight.detach().numpy()
    np.testing.assert_allclose(table.embeddings, weight, rtol=1e-6)
    red = tokenizer(" red")["input_ids"][0]
    assert table.tokens[red] == " red"
    assert {0, 1, 2, 3} <= table.special
    assert tokenizer("Ω")["input_ids"][0] in table.special
    assert red not in table.special


async def test_what_is_outside_of_all_units_is_listed_with_its_reason():
    model, tokenizer = tiny.llama(), tiny.byte_tokenizer(chat=True)
    prompt = pizza.Prompt.chat(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How many?"}]
    ).fix((0, 0, 2))
    async with pizza.Session(LocalBackend(model, tokenizer)) as session:
        result = await session.attribute(prompt, method="saliency", target=" red pears")
    outside = result.provenance["method"]["details"]["tokens_outside_units"]
    reasons = {(entry["text"], entry["origin"]) for entry in outside}
    assert ("<|system|>", "special") in reasons
    assert ("<|assistant|>", "special") in reasons
    assert any(origin == "fixed" for _, origin in reasons)
    assert any(origin == "output" for _, origin in reasons)
    read = LocalBackend(model, tokenizer)._open.encoder.encode(prompt)
    inside = len(read.tokens) + len(result.output.tokens) - 1 - len(outside)
    assert inside >= len(result.units)


async def test_passes_are_in_the_provenance_and_survive_saving():
    async with pizza.Session(LocalBackend(tiny.gpt2(), tiny.byte_tokenizer())) as session:
        result = await session.attribute(PROMPT, method="saliency:level=sequence", target=" red")
    assert result.calls == 0
    details = json.loads(json.dumps(result.to_dict()))["provenance"]["method"]["details"]
    assert details["passes"]["forward_passes"] == 1
    assert details["passes"]["backward_passes"] == 1
    assert result.cost == 0.0


async def test_a_closed_backend_says_so():
    backend = LocalBackend(tiny.gpt2(), tiny.byte_tokenizer(), name="tiny")
    await backend.aclose()
    with pytest.raises(pizza.errors.SessionClosedError, match="local:tiny is closed"):
        _ = backend.capabilities
