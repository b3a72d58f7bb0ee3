# SPDX-License-Identifier: Apache-2.0
"""The embedded model through torch: the same numbers as its own runtime, and what gradients find.

The runtime of the embedded model is its own; transformers reads the same weights as a Llama.
"""

import asyncio
import itertools
from pathlib import Path

import numpy as np
import pytest

import pizza

pytestmark = [pytest.mark.torch, pytest.mark.slow]

torch = pytest.importorskip("torch")
pizza_embedded = pytest.importorskip("pizza_embedded")

from pizza_embedded.world import heldout  # noqa: E402

WEIGHTS = Path(pizza_embedded.__path__[0]) / "weights"
N_PROMPTS = 200
README = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"
CHATS = [
    [{"role": "user", "content": README}],
    [
        {"role": "system", "content": "Answer with a number."},
        {"role": "user", "content": "Bob has 5 green pears."},
        {"role": "assistant", "content": "Good."},
        {"role": "user", "content": "How many pears does Bob have?"},
    ],
]


def local():
    return pizza.Session(f"local:{WEIGHTS}")


def examples(n):
    """The first ``n`` different held-out prompts."""
    return list(itertools.islice({e.text: e for e in heldout(2 * n, seed=11)}.values(), n))


async def answers(session, requests):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(session.submit(request)) for request in requests]
    return [task.result() for task in tasks]


def request(prompt, target=None, max_tokens=12):
    return pizza.Request(
        prompt=pizza.Prompt.of(prompt),
        kind="complete" if target is None else "score",
        target=target,
        generation=pizza.Generation(max_tokens=max_tokens, top_logprobs=5),
    )


async def both(requests):
    async with pizza.Session("embedded") as session:
        own = await answers(session, requests)
    async with local() as session:
        return own, await answers(session, requests)


async def test_log_probabilities_are_those_of_its_own_runtime():
    found = examples(40)
    requests = [request(e.text, " " + e.answer) for e in found]
    requests += [request(e.text, " something else, café 😀.") for e in found[:10]]
    requests += [request(chat, " 5") for chat in CHATS]
    own, torchs = await both(requests)
    for one, other in zip(own, torchs, strict=True):
        assert one.text == other.text
        np.testing.assert_allclose(other.logprobs, one.logprobs, atol=1e-4)
        best = one.alternative_logprobs
        np.testing.assert_allclose(other.alternative_logprobs[:, : best.shape[1]], best, atol=1e-4)


async def test_greedy_answers_are_those_of_its_own_runtime():
    own, torchs = await both([request(e.text) for e in examples(60)] + [request(c) for c in CHATS])
    for one, other in zip(own, torchs, strict=True):
        assert other.text == one.text
        assert other.finish_reason == one.finish_reason


def overlaps(unit, spans):
    return any(unit.start < end and start < unit.end for start, end in spans)


async def correct(session):
    """The first 200 held-out prompts that the model answers correctly."""
    drawn = examples(N_PROMPTS + 20)
    found = await answers(session, [request(e.text) for e in drawn])
    right = [e for e, one in zip(drawn, found, strict=True) if one.text.strip() == e.answer]
    assert len(right) >= N_PROMPTS
    return right[:N_PROMPTS]


async def hits(session, found, method):
    """How often a method ranks a causal word first, and a value's word among the first three."""
    first = among = 0
    by_prompt = {e.text: e for e in found}
    async with session.attribute_many(by_prompt, method=method) as outcomes:
        async for outcome in outcomes:
            assert outcome.error is None, outcome.error
            example = by_prompt[outcome.prompt]
            ranked = [unit for unit, _ in outcome.attribution.top(3)]
            first += overlaps(ranked[0], (*example.value_spans, *example.key_spans))
            among += any(overlaps(unit, example.value_spans) for unit in ranked)
    return first, among


FLOORS = {
    "leave-one-out": (192, 196),
    "saliency": (176, 180),
    "input-x-gradient": (130, 142),
    "integrated-gradients:level=sequence": (175, 176),
    "integrated-gradients:baseline=pad,level=sequence": (192, 196),
}
"""Of 200: a causal word first, a value's word among the first three; a little below what is so.

Measured: 197 and 200, 182 and 186, 139 and 152, 182 and 184, 198 and 200; with the mean of all
embeddings as the baseline integrated gradients reach 172 and 167.
"""


@pytest.mark.timeout(900)
async def test_each_method_ranks_a_causal_word_first():
    measured = {}
    async with local() as session:
        found = await correct(session)
        for method in FLOORS:
            measured[method] = await hits(session, found, method)
    print()
    for method, (first, among) in measured.items():
        print(
            f"{method:40} causal first {first:3}/{N_PROMPTS}  value in three {among:3}/{N_PROMPTS}"
        )
    for method, floors in FLOORS.items():
        pairs = zip(measured[method], floors, strict=True)
        assert all(found >= floor for found, floor in pairs), (method, measured[method])
