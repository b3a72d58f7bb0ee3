# SPDX-License-Identifier: Apache-2.0
"""Both engines give the same gradients, and count the passes that the method needs."""

import logging

import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from pizza_local import LocalBackend  # noqa: E402
from pizza_local.gradients.stacked import Stacked  # noqa: E402
from pizza_local.scoring import Item, trie_size  # noqa: E402
from support import cases, oracles, tiny  # noqa: E402

import pizza  # noqa: E402


def details(found):
    return found.provenance["method"]["details"]


def passes(found):
    return details(found)["passes"]


def swept(reading):
    """Positions that all output tokens depend on: what comes before each."""
    return sum(len(reading.prompt) + t for t in range(len(reading.targets)))


class Calls:
    """Forward passes through a model, as its own hooks see them: (rows, positions)."""

    def __init__(self, model):
        self.seen = []
        self._handle = model.register_forward_pre_hook(self._look, with_kwargs=True)

    def _look(self, _, args, kwargs):
        given = kwargs.get("inputs_embeds", kwargs.get("input_ids"))
        self.seen.append(tuple(given.shape[:2]))

    def close(self):
        self._handle.remove()


# --- the same numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("target", ["text", "span", "contrast"])
async def test_stacked_and_retained_agree(kind, target):
    case = cases.make(kind)
    found = {}
    for name, stacked in (("stacked", True), ("retained", False)):
        async with pizza.Session(case.open(stacked=stacked)) as session:
            found[name] = [
                await case.ask(session, method, target)
                for method in ("saliency", "layer-saliency:layer=1", "saliency:level=sequence")
            ]
        assert {details(one)["engine"] for one in found[name]} == {name}
    for one, other in zip(found["stacked"], found["retained"], strict=True):
        assert oracles.apart(one.scores, other.scores) <= case.tolerance


async def test_a_model_that_somebody_changed_is_differentiated_by_autograd():
    model, tokenizer = tiny.gpt2(), tiny.byte_tokenizer()
    # What autograd sees and a hand-written backward would not.
    model.transformer.h[1].mlp.register_forward_hook(lambda _, __, output: 1.5 * output)
    case = cases.make("gpt2")
    async with pizza.Session(LocalBackend(model, tokenizer)) as session:
        found = await case.ask(session, "saliency")
    assert details(found)["engine"] == "retained"
    explained = case.targets["text"][1]
    own = oracles.Explained(
        reading=oracles.Reading(model, case.ids, explained.reading.targets),
        inside=explained.inside,
    )
    assert oracles.apart(found.scores, case.units(oracles.saliency(own), "norm")) <= 1e-9


async def test_fast_gradients_that_do_not_fit_are_found_out_on_first_use(monkeypatch, caplog):
    right = Stacked.gradients

    def off(self, *args, **options):
        for chunk, values, gradients in right(self, *args, **options):
            yield chunk, values, 1.01 * gradients

    monkeypatch.setattr(Stacked, "gradients", off)
    case = cases.make("gpt2")
    with caplog.at_level(logging.WARNING, "pizza.local"):
        found = await case.attribute("saliency")
    assert details(found)["engine"] == "retained"
    assert any("plain autograd is used" in record.getMessage() for record in caplog.records)
    expected = case.units(oracles.saliency(case.targets["text"][1]), "norm")
    assert oracles.apart(found.scores, expected) <= 1e-9


@pytest.mark.parametrize("kind", ["gpt2", "t5", "bert-mlm"])
async def test_parameters_get_no_gradients_and_stay_trainable(kind):
    case = cases.make(kind)
    await case.attribute("input-x-gradient")
    assert all(weight.grad is None for weight in case.model.parameters())
    assert all(weight.requires_grad for weight in case.model.parameters())


# --- counted passes ------------------------------------------------------------------------------


@pytest.mark.parametrize("stacked", [True, False])
async def test_the_whole_sequence_is_one_forward_and_one_backward(stacked):
    case = cases.make("gpt2")
    length = len(case.targets["text"][1].reading.ids)
    async with pizza.Session(case.open(stacked=stacked)) as session:
        # The first question holds the stacked engine against autograd, aside.
        await case.ask(session, "saliency:level=sequence")
        calls = Calls(case.model)
        found = await case.ask(session, "saliency:level=sequence")
        calls.close()
    assert passes(found) == {
        "forward_passes": 1,
        "backward_passes": 1,
        "forward_tokens": length,
        "backward_tokens": length,
    }
    if not stacked:
        assert calls.seen == [(1, length)]


@pytest.mark.parametrize("kind", ["gpt2", "t5", "bert-mlm", "bert-classifier", "bag-of-words"])
async def test_retained_does_one_forward_and_a_backward_per_output_token(kind):
    case = cases.make(kind)
    options = {} if kind == "bag-of-words" else {"stacked": False}
    calls = Calls(case.model) if kind != "bag-of-words" else None
    async with pizza.Session(case.open(**options)) as session:
        found = await case.ask(session, "saliency")
    outputs = len(case.targets["text"][1].reading.targets)
    assert passes(found)["forward_passes"] == 1
    assert passes(found)["backward_passes"] == outputs
    if calls is not None:
        calls.close()
        assert len(calls.seen) == 1


async def test_stacked_does_one_forward_and_one_sweep_for_all_output_tokens():
    case = cases.make("gpt2")
    reading = case.targets["text"][1].reading
    found = await case.attribute("saliency")
    assert passes(found) == {
        "forward_passes": 1,
        "backward_passes": 1,
        "forward_tokens": len(reading.ids),
        "backward_tokens": swept(reading),
    }


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("level", ["token", "sequence"])
async def test_integrated_gradients_count_their_steps_and_the_two_ends(stacked, level):
    case = cases.make("gpt2")
    reading = case.targets["text"][1].reading
    steps, length = 7, len(reading.ids)
    each = length if level == "sequence" else len(reading.targets) * length
    if stacked and level == "token":
        each = swept(reading)
    async with pizza.Session(case.open(stacked=stacked)) as session:
        found = await case.ask(session, f"integrated-gradients:steps={steps},level={level}")
    assert passes(found)["forward_tokens"] == (steps + 2) * length
    assert passes(found)["backward_tokens"] == steps * each
    # All steps fit into one batch; the two ends are another.
    assert passes(found)["forward_passes"] == 2


async def test_a_contrast_takes_the_other_output_as_a_whole():
    case = cases.make("gpt2")
    _, explained = case.targets["contrast"]
    async with pizza.Session(case.open(stacked=False)) as session:
        found = await case.ask(session, "saliency", "contrast")
    assert passes(found)["forward_passes"] == 2
    assert passes(found)["backward_passes"] == len(explained.reading.targets) + 1


# --- leave-one-out -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("stand_in", ["the", "A"])
async def test_leave_one_out_computes_each_node_of_the_trie_once(kind, stand_in):
    case = cases.make(kind)
    target = tuple(case.targets["text"][1].reading.targets)
    prompts = [case.prompt[:start] + stand_in + case.prompt[end:] for start, end in case.words]
    items = [
        Item(prompt=tuple(case.again(prompt, target).prompt), target=target) for prompt in prompts
    ]
    backend = case.open()
    async with pizza.Session(backend) as session:
        found = await case.ask(session, "leave-one-out", perturbation=f"fixed:text={stand_in}")
        total = backend.counts.to_dict()
    reference = len(case.ids) + len(target) - 1
    assert total["forward_tokens"] == reference + trie_size(items)
    # And that is what its provenance says, of an attribution that ran alone.
    assert found.provenance["work"] == {**total, "alone": True}
    assert total["backward_passes"] == 0
    expected = case.leave_one_out("text", stand_in)
    assert oracles.apart(found.scores, expected) <= case.tolerance
    assert _nodes(items) == trie_size(items)


def _nodes(items):
    """Nodes of a prefix tree: different beginnings."""
    beginnings = (item.sequence[:n] for item in items for n in range(1, len(item.sequence) + 1))
    return len(set(beginnings))


async def test_what_two_attributions_computed_together_is_not_claimed_by_one():
    case = cases.make("gpt2")
    async with pizza.Session(case.open()) as session:
        alone = await case.ask(session, "leave-one-out")
        prompts = [case.prompt + " 1", case.prompt + " 2"]
        async with session.attribute_many(prompts, target=case.targets["text"][0]) as outcomes:
            both = [outcome.attribution async for outcome in outcomes]
        again = await case.ask(session, "leave-one-out")
    assert alone.provenance["work"]["alone"] is True
    assert alone.provenance["work"]["forward_tokens"] > 0
    assert [one.provenance["work"]["alone"] for one in both] == [False, False]
    # Answers that came from the cache were not computed again.
    assert again.provenance["work"]["forward_tokens"] == 0


async def test_backends_that_count_no_work_say_nothing_about_it():
    async with pizza.Session("embedded") as session:
        found = await session.attribute("The mug is blue.", method="leave-one-out")
    assert "work" not in found.provenance
