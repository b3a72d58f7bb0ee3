# SPDX-License-Identifier: Apache-2.0
"""Discretized integrated gradients: paths through real words."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pizza_local.methods import blocks, word_paths  # noqa: E402
from pizza_local.methods.discretized_integrated_gradients import (  # noqa: E402
    DiscretizedIntegratedGradients,
)
from pizza_local.preparing import prepare  # noqa: E402
from support import cases, oracles, tiny  # noqa: E402

from pizza.errors import CapabilityError, ConfigError  # noqa: E402
from pizza.prompt import Prompt  # noqa: E402

KINDS = [kind for kind in oracles.KINDS if kind != "bag-of-words"]
SPECIAL = {"bert-classifier": {0, 1, 2, 3, 4}, "bert-mlm": {0, 1, 2, 3, 4}}
BYTES = {0, 1, 2, 3}
UNK, MASK = 3, 4


def neighbours_of(table, word, most, special):
    """Ids of the nearest words, one distance at a time."""
    words = [i for i in range(len(table)) if i not in special and i != word]
    return sorted(words, key=lambda i: float((table[i] - table[word]).norm()))[:most]


def is_between(anchor, goal, here):
    return ((here <= anchor) & (anchor <= goal)) | ((goal <= anchor) & (anchor <= here))


def pulled(anchor, goal, here, steps):
    inside = is_between(anchor, goal, here)
    return torch.where(inside, anchor, here - (here - goal) / steps)


def walk(table, word, goal, steps, strategy, most, special):
    """One path, baseline first, ``(steps, d)``."""
    points, seen, place = [table[word]], {word}, word
    while len(points) < steps - 1:
        candidates = [
            i
            for i in neighbours_of(table, place, most, special)
            if i not in seen and not torch.equal(table[i], goal)
        ]
        if torch.equal(points[-1], goal) or not candidates:
            points.append(goal)
            continue
        if strategy == "greedy":

            def cost(i, here=place):
                return float((table[i] - pulled(table[i], goal, table[here], steps)).norm())

        else:

            def cost(i, here=place):
                return -int(is_between(table[i], goal, table[here]).sum())

        place = min(candidates, key=cost)
        seen.add(place)
        points.append(pulled(table[place], goal, points[-1], steps))
    return torch.stack([*points, goal][::-1])


def paths(case, explained, baseline, steps, strategy, most):
    table = case.model.get_input_embeddings().weight.detach()
    special = SPECIAL.get(case.kind, BYTES)
    start, absent = explained.start(), explained.baseline(baseline)
    whole = start.repeat(steps, 1, 1)
    for place, used in enumerate(explained.inside):
        if used:
            word = explained.reading.ids[place]
            whole[:, place] = walk(table, word, absent[place], steps, strategy, most, special)
    return whole


def discretized(case, target, baseline, steps=5, strategy="greedy", most=20, function="logprob"):
    explained = case.targets[target][1]
    points = paths(case, explained, baseline, steps, strategy, most)
    total = 0.0
    for k in range(steps - 1):
        total = total + (explained.jacobian(points[k], function) * (points[k + 1] - points[k]))
    return total.sum(-1)


@pytest.mark.parametrize("strategy", ["greedy", "maxcount"])
@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_the_sum_over_steps_between_words(kind, strategy):
    case = cases.make(kind)
    method = DiscretizedIntegratedGradients(steps=5, strategy=strategy, neighbours=20)
    found = await case.attribute(method)
    baseline = MASK if kind in SPECIAL else UNK
    expected = discretized(case, "text", baseline, strategy=strategy)
    assert oracles.apart(found.scores, case.units(expected)) < case.tolerance


@pytest.mark.parametrize(
    ("kind", "function", "target", "baseline"),
    [
        ("gpt2", "prob", "contrast", "zero"),
        ("gpt2", "entropy", "text", 90),
        ("t5", "logit", "tokens", UNK),
        ("bert-mlm", "prob", "text", "zero"),
    ],
)
async def test_options(kind, function, target, baseline):
    case = cases.make(kind)
    method = DiscretizedIntegratedGradients(
        steps=4, neighbours=10, baseline=baseline, function=function
    )
    found = await case.attribute(method, target)
    expected = discretized(case, target, baseline, steps=4, most=10, function=function)
    assert oracles.apart(found.scores, case.units(expected)) < case.tolerance


async def test_at_the_level_of_the_sequence_the_whole_is_the_same():
    case = cases.make("llama")
    method = DiscretizedIntegratedGradients(steps=5, neighbours=20, level="sequence")
    found = await case.attribute(method)
    whole = discretized(case, "text", UNK)[:1]
    assert oracles.apart(found.scores[:1], case.units(whole)) < case.tolerance
    assert np.isnan(found.scores[1:]).all()


class Graph:
    """Neighbours as inseq takes them: a row has its neighbours' ids as ``col``."""

    def __init__(self, rows):
        self.rows = rows

    def __getitem__(self, word):
        self.col = self.rows[word]
        return self

    def tocoo(self):
        return self


@pytest.mark.parametrize("strategy", ["greedy", "maxcount"])
async def test_paths_are_those_of_inseq(strategy):
    builder = pytest.importorskip("inseq.attr.feat.ops.monotonic_path_builder")
    case = cases.make("gpt2")
    explained = case.targets["text"][1]
    table = case.model.get_input_embeddings().weight.detach()
    tokenizer = tiny.byte_tokenizer()
    ids = tokenizer(case.prompt)["input_ids"]
    assert tuple(ids) == case.ids
    graph = Graph({i: neighbours_of(table, i, 12, BYTES) for i in range(len(table))})
    theirs = builder.MonotonicPathBuilder(table, graph, special_tokens=[])
    words = words_of(case.model, tokenizer, case.prompt, [5])
    start = explained.start()[: len(ids)]
    ours = word_paths.word_paths(
        words, ids, start, table[UNK].expand_as(start), steps=8, strategy=strategy, neighbours=12
    )
    for place, index in enumerate(ids):
        way = theirs.find_path(index, UNK, n_steps=8, strategy=strategy)
        expected = theirs.build_monotonic_path_embedding(way, UNK, n_steps=8)
        assert oracles.apart(ours[:, place], expected) < 1e-9


def words_of(model, tokenizer, text, targets):
    """The vocabulary of a model, by way of a subject of it."""
    opened = prepare(model, tokenizer, name="tiny", chat=None, stacked=False)
    subject = opened.kind.subject(opened.encoder.encode(Prompt.of(text)), targets)
    return word_paths.Words(subject, lambda: None)


def test_paths_are_monotone_and_end_at_the_baseline():
    case = cases.make("bert-mlm")
    tokenizer = tiny.word_tokenizer()
    words = words_of(case.model, tokenizer, case.prompt, [9, 40])
    assert not SPECIAL["bert-mlm"] & set(words.ids)
    table = words.embed(range(len(tokenizer)))
    ids = [10, 11, 10, MASK]
    start = table[ids]
    path = word_paths.word_paths(
        words, ids, start, table[MASK].expand_as(start), steps=30, strategy="greedy", neighbours=50
    )
    left = (path - table[MASK]).abs()
    assert (left.diff(dim=0) >= -1e-12).all()
    assert torch.equal(path[-1], start)
    assert torch.equal(path[0], table[MASK].expand_as(start))
    assert torch.equal(path[:, 0], path[:, 2])
    assert torch.equal(path[:, 3], table[MASK].expand(30, -1))


def test_the_same_word_may_go_to_different_baselines():
    case = cases.make("gpt2")
    words = words_of(case.model, tiny.byte_tokenizer(), case.prompt, [5])
    start = words.embed([30, 30])
    ends = torch.stack([torch.zeros(32).double(), words.embed([50])[0]])
    options = {"steps": 6, "strategy": "greedy", "neighbours": 9}
    both = word_paths.word_paths(words, [30, 30], start, ends, **options)
    for place in (0, 1):
        one = word_paths.word_paths(words, [30], start[:1], ends[place : place + 1], **options)
        assert oracles.apart(both[:, place], one[:, 0]) < 1e-12


async def test_where_no_word_is_left_the_path_goes_to_the_baseline(monkeypatch):
    case = cases.make("gpt2")
    method = DiscretizedIntegratedGradients(steps=6, neighbours=1)
    found = await case.attribute(method)
    expected = discretized(case, "text", UNK, steps=6, most=1)
    assert oracles.apart(found.scores, case.units(expected)) < case.tolerance
    # Neither the pieces of the vocabulary nor those of the path matter.
    monkeypatch.setattr(word_paths, "_ROWS", 7)
    monkeypatch.setattr(blocks, "_BYTES", 1)
    again = await case.attribute(method)
    assert oracles.apart(again.scores, found.scores) < 1e-9


async def test_the_miss_is_told():
    case = cases.make("gpt2")
    found = await case.attribute(DiscretizedIntegratedGradients(steps=4))
    explained = case.targets["text"][1]
    with torch.no_grad():
        gap = explained.rows(explained.start()) - explained.rows(explained.baseline(UNK))
    details = found.provenance["method"]["details"]
    assert oracles.apart(details["difference_to_baseline"], gap) < 1e-9
    assert oracles.apart(details["completeness_error"], found.scores.sum(1) - gap.numpy()) < 1e-9
    assert "use more steps" in found.warnings[0]


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 1},
        {"steps": 3.0},
        {"strategy": "random"},
        {"neighbours": 0},
        {"neighbours": True},
        {"layer": -1},
    ],
)
def test_options_that_mean_nothing_are_refused(options):
    (value,) = options.values()
    with pytest.raises(ConfigError, match=str(value)):
        DiscretizedIntegratedGradients(**options)


async def test_features_have_no_words_to_walk_through():
    case = cases.make("bag-of-words")
    with pytest.raises(CapabilityError, match="no token embeddings"):
        await case.attribute(DiscretizedIntegratedGradients())
