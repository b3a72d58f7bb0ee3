# SPDX-License-Identifier: Apache-2.0
import random
from itertools import pairwise

import numpy as np
import pytest

pytestmark = pytest.mark.torch

pytest.importorskip("torch")

from pizza_local.scoring import Item, trie_size  # noqa: E402
from pizza_local.scoring.trie import grow  # noqa: E402


def items_of(rng, n, alphabet=3, longest=7):
    """Short sequences over few letters: duplicates and prefixes of one another are common."""
    drawn = []
    for _ in range(n):
        tokens = tuple(rng.randrange(alphabet) for _ in range(rng.randint(2, longest)))
        cut = rng.randint(1, len(tokens) - 1)
        drawn.append(Item(prompt=tokens[:cut], target=tokens[cut:]))
    return drawn


def prefixes(items):
    """The nodes of a trie by definition: the different beginnings."""
    return {item.sequence[:n] for item in items for n in range(1, len(item.sequence) + 1)}


@pytest.mark.parametrize("seed", range(20))
def test_a_node_is_a_beginning_and_is_there_once(seed):
    rng = random.Random(seed)
    items = items_of(rng, rng.randint(1, 40))
    trie = grow(items)

    spelled = [tuple(trie.tokens[[*trie.above(node), node]].tolist()) for node in range(len(trie))]

    assert len(spelled) == len(set(spelled)) == trie_size(items)
    assert set(spelled) == prefixes(items)
    assert [len(beginning) - 1 for beginning in spelled] == trie.depths.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_targets_are_predicted_from_what_precedes_them(seed):
    rng = random.Random(seed)
    items = items_of(rng, rng.randint(1, 40))
    trie = grow(items)

    for item, states in zip(items, trie.states, strict=True):
        whole = item.prompt + item.target
        assert len(states) == len(item.target)
        for t, node in enumerate(states):
            beginning = tuple(trie.tokens[[*trie.above(node), node]].tolist())
            assert beginning == whole[: len(item.prompt) + t]


@pytest.mark.parametrize("seed", range(20))
def test_ends_say_who_is_below_whom(seed):
    rng = random.Random(seed)
    trie = grow(items_of(rng, 30))
    for node in range(len(trie)):
        above = set(trie.above(node).tolist())
        by_ends = {j for j in range(node) if j <= node < trie.ends[j]}
        assert above == by_ends
        assert len(above) == trie.depths[node]


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_branches_of_a_chunk_are_lines_of_descent(size):
    trie = grow(items_of(random.Random(3), 30))
    seen = []
    for start in range(0, len(trie), size):
        chunk = slice(start, min(start + size, len(trie)))
        for first, depth, length in trie.branches(chunk):
            nodes = np.arange(start + first, start + first + length)
            seen.extend(nodes.tolist())
            assert trie.depths[nodes].tolist() == list(range(depth, depth + length))
            for parent, child in pairwise(nodes):
                assert trie.above(child)[-1] == parent
    assert seen == list(range(len(trie)))


def test_leaving_one_out_shares_what_stands_before_it():
    prompt, target = tuple(range(10)), (90, 91, 92)
    whole = Item(prompt=prompt, target=target)
    deleted = [Item(prompt=prompt[:i] + prompt[i + 1 :], target=target) for i in range(10)]
    replaced = [Item(prompt=(*prompt[:i], 50, *prompt[i + 1 :]), target=target) for i in range(10)]

    # Without token i: the 9 - i behind it and the 2 target tokens that are fed, once more. When
    # the last prompt token is deleted, the target parts right there.
    assert trie_size([whole]) == 12
    assert trie_size([whole, *deleted]) == 12 + sum(9 - i + 2 for i in range(10))
    assert trie_size([whole, *replaced]) == 12 + sum(10 - i + 2 for i in range(10))


def test_what_is_equal_is_computed_once():
    one = Item(prompt=(1, 2), target=(3, 4))
    other_cut = Item(prompt=(1,), target=(2, 3, 9))
    assert trie_size([one]) == trie_size([one, one, other_cut]) == 3


@pytest.mark.parametrize(("prompt", "target"), [((), (1,)), ((1,), ())])
def test_empty_sides_are_refused(prompt, target):
    with pytest.raises(ValueError, match="0 tokens"):
        Item(prompt=prompt, target=target)
